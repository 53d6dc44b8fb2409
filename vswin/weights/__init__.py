"""Names, files and strict loading of weights."""
