"""Pieces of music, MIDI files, and quantization to a tick grid. Uses numpy and pretty_midi, never jax."""
