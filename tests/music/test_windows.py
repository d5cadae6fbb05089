"""Windows of a piece: whole bars where they fit, and every event foretold once, behind what came before it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece
from tests.music.midi_files import random_piece
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()


@given(pieces(), st.integers(8, 60))
def test_a_window_is_the_end_of_the_piece_from_its_bar_on(piece, length):
    quantized = TOKENIZER.quantize(piece)
    events = TOKENIZER.encode(quantized)[:-1]
    part, bar = TOKENIZER.window(events, length)
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
    assert TOKENIZER.window(events, len(events))[0] is events
    part, bar = TOKENIZER.window(events, 7)
    assert (len(part), bar) == (7, 5)


@given(pieces(), st.integers(8, 64))
def test_windows_foretell_every_event_once(piece, context):
    events = TOKENIZER.encode(TOKENIZER.quantize(piece))
    told = []
    for window, first in TOKENIZER.windows(events, context):
        assert len(window) <= context and window[0, ev.ONSET] == ev.BOS and first >= 1
        told.append(window[first:])
    joined = np.concatenate(told)
    # All but BOS; only where a window's head says what its first events said can one be taken for given.
    assert len(events) - 1 - 2 * len(told) <= len(joined) <= len(events) - 1
    assert joined[-1, ev.ONSET] == ev.EOS
    notes = joined[NoteEvents.is_note(joined)]
    assert np.array_equal(notes[:, ev.PITCH :], events[NoteEvents.is_note(events)][:, ev.PITCH :])


def test_what_is_foretold_stands_behind_half_a_context():
    events = TOKENIZER.encode(TOKENIZER.quantize(random_piece(0, 300)))
    context = 64
    for window, first in list(TOKENIZER.windows(events, context))[1:]:
        assert first >= (context - 3) // 2
        assert len(window) - first >= (context - 3) // 4 or window[-1, ev.ONSET] == ev.EOS
