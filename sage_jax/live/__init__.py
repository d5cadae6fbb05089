"""Live play: a musician and the model, on time."""
