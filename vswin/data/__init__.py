"""The video pipeline: turns a list of records into batches of uint8 clips."""
