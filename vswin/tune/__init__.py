"""Settings found by trying: the learning rate by a range test, and the largest batch that fits into memory."""
