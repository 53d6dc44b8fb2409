"""Fine-tuning: optimizer, schedule, train step, checkpoints and the run that ties them together."""
