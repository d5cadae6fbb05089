"""Rendering of pieces as piano rolls and audio, and of training runs as learning curves."""
