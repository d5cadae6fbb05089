"""Token shards to batches of crops, through grain."""
