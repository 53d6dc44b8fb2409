"""Files that training runs and evaluations leave in their folders: writing and reading them."""
