"""The report of a run: one page that needs nothing beside it, and pictures of its plots."""
