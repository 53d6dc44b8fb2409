"""What training runs and evaluations leave in their folders: written there, and read back."""
