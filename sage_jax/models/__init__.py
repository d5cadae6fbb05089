"""The music transformer and its key-value sharing."""
