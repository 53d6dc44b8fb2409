"""Published weights: fetched once, checked, and found again."""
