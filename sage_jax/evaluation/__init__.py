"""What a model is worth: likelihood, continuations against floors, memory, listeners; never a score without its interval."""
