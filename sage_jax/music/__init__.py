"""Notes, tokens and corpora: numpy and pretty_midi only, never jax."""
