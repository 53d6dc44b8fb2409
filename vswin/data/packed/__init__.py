"""Data sets whose videos lie in a few large files: packed by `vswin data prepare`, or prepared by TFDS."""
