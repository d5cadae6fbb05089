"""Training: the train step, its state and optimizer, device placement, checkpoints, metrics and the loop."""
