"""Runs side by side: what they reached, what differed, and whether the difference is more than chance."""
