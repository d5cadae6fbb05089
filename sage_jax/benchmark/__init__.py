"""Measurements of speed and memory, each runnable as a module."""
