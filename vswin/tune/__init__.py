"""Find settings by trials: the learning rate by a range test, and the largest batch that fits into memory."""
