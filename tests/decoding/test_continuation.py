"""Prompts for continuation: the first bars of a piece."""

import pytest

from sage_jax.decoding.continuation import first_bars
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece


def test_first_bars_begin_with_the_first_note_and_are_long_enough():
    piece = Piece.from_notes([(48 * bar, 0, 60, 12, 65) for bar in range(3, 7)])
    assert first_bars(piece, 4, "song").notes["onset"].tolist() == [0, 48, 96, 144]
    empty = Piece.from_notes([])
    for source, bars, message in ((piece, 5, "4 bars of music"), (piece, 0, "at least 1"), (empty, 1, "no notes")):
        with pytest.raises(UserError, match=message):
            first_bars(source, bars, "song")
