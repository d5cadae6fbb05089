"""Benchmarks of speed and memory. The measured systems run as modules."""
