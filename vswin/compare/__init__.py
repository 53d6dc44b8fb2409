"""Compare runs: their results, their settings, and whether their accuracies differ by more than chance."""
