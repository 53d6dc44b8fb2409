"""Predictions for videos of one's own, and their features: `vswin predict`, `vswin extract`."""
