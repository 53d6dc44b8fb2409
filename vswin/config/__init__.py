"""Configurations: their schema, how they are composed and checked, and their help."""
