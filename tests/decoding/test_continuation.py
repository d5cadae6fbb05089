"""What is continued: the opening of a piece."""

import pytest

from sage_jax.decoding.continuation import opening
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece


def test_the_opening_begins_with_the_first_note_and_is_long_enough():
    piece = Piece.from_notes([(48 * bar, 0, 60, 12, 65) for bar in range(3, 7)])
    assert opening(piece, 4, "song").notes["onset"].tolist() == [0, 48, 96, 144]
    for wrong, bars, message in ((piece, 5, "4 bars of music"), (piece, 0, "at least 1"), (Piece.from_notes([]), 1, "no notes")):
        with pytest.raises(UserError, match=message):
            opening(wrong, bars, "song")
