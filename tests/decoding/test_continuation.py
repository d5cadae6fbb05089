"""Windows of a piece: whole bars that fit, and where in the piece they lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.decoding.continuation import opening, window
from sage_jax.errors import UserError
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()


@given(pieces(), st.integers(8, 60))
def test_a_window_is_the_end_of_the_piece_from_its_bar_on(piece, length):
    quantized = TOKENIZER.quantize(piece)
    events = TOKENIZER.encode(quantized)[:-1]
    part, bar = window(TOKENIZER, events, length)
    shown = TOKENIZER.decode(part).notes
    expected = quantized.slice_bars(bar, 10**6).notes
    assert len(part) <= max(length, 4 + 30)  # a rest of very many bars is many events, and stays
    # All of those bars, or where one bar is too long, the last notes of them.
    assert len(shown) <= len(expected)
    tail = expected[len(expected) - len(shown) :]
    assert np.array_equal(shown["pitch"], tail["pitch"])
    assert np.array_equal(shown["onset"], tail["onset"])


def test_a_short_piece_is_its_own_window():
    events = TOKENIZER.encode(Piece.from_notes([(48 * bar, 0, 60, 12, 65) for bar in range(9)]))[:-1]
    assert window(TOKENIZER, events, len(events)) [0] is events
    part, bar = window(TOKENIZER, events, 7)
    assert (len(part), bar) == (7, 5)


def test_the_opening_begins_with_the_first_note_and_is_long_enough():
    piece = Piece.from_notes([(48 * bar, 0, 60, 12, 65) for bar in range(3, 7)])
    assert opening(piece, 4, "song").notes["onset"].tolist() == [0, 48, 96, 144]
    for wrong, bars, message in ((piece, 5, "4 bars of music"), (piece, 0, "at least 1"), (Piece.from_notes([]), 1, "no notes")):
        with pytest.raises(UserError, match=message):
            opening(wrong, bars, "song")
