"""StrIPE's two measures equal hand-computed values."""

import pytest

from sage_jax.evaluation.prompts import empty
from sage_jax.evaluation.stripe import stripe
from sage_jax.music.notes import DRUMS, Piece


def test_a_copy_and_silence():
    piece = Piece.from_notes([(6 * n, 0, 60 + n % 7, 6, 64) for n in range(32)])
    assert stripe(piece, piece, 16) == pytest.approx((100, 0))
    similarity, distance = stripe(piece, empty(piece), 16)
    assert similarity == 0 and distance > 5


def test_hand_computed_values():
    # Two units of two quarters: the same pitch classes in the first, none in common in the second.
    one = Piece.from_notes([(0, 0, 60, 24, 64), (24, 0, 62, 24, 64)])
    other = Piece.from_notes([(0, 0, 72, 24, 64), (24, 5, 65, 24, 64), (0, DRUMS, 36, 24, 64)])
    assert stripe(one, other, 4) == pytest.approx((50, 0))
    # A constant pitch: its two halves are equal, those of `one` are orthogonal, so half of the pairs differ by 1.
    same = Piece.from_notes([(0, 0, 60, 24, 64), (24, 0, 60, 24, 64)])
    assert stripe(one, same, 4) == pytest.approx((50, 50))
