"""Predictions and features of your own videos: `vswin predict`, `vswin extract`."""
