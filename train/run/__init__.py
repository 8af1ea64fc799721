"""What outlives a step: work directory, checkpoints, metrics, clock, signals."""
