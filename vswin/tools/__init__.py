"""Commands beside training and evaluation: tune, bench, self-test, splits, export, and the table of models."""
