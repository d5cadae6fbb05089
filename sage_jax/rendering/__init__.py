"""Pieces to see and to hear: piano rolls and recordings."""
