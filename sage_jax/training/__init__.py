"""Training: the pure step, its state and optimizer, checkpoints, and the loop that runs them."""
