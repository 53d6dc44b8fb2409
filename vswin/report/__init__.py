"""The report of a run: one self-contained page, and images of its plots."""
