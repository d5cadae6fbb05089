"""Mirrors sage_jax; `python -m pytest` runs it from the root of the checkout."""
