"""The video pipeline: from a list of records to batches of uint8 clips."""
