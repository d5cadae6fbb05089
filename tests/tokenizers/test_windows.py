"""Windows of NoteEvents: whole bars where they fit, and every event scored once with enough history."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.music.notes import Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.midi_files import random_piece
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()


@given(pieces(), st.integers(8, 60))
def test_a_window_is_the_last_bars_of_the_piece(piece, length):
    quantized = TOKENIZER.quantize(piece)
    events = TOKENIZER.encode(quantized)[:-1]
    part, bar = TOKENIZER.window(events, length)
    notes = TOKENIZER.decode(part).notes
    expected = quantized.slice_bars(bar, 10**6).notes
    assert len(part) <= max(length, 4 + 30)  # a very long rest is many events, which a window keeps
    # All notes of those bars, or the last ones if a bar is too long.
    assert len(notes) <= len(expected)
    tail = expected[len(expected) - len(notes) :]
    assert np.array_equal(notes["pitch"], tail["pitch"])
    assert np.array_equal(notes["onset"], tail["onset"])


def test_a_short_piece_is_its_own_window():
    events = TOKENIZER.encode(Piece.from_notes([(48 * bar, 0, 60, 12, 65) for bar in range(9)]))[:-1]
    assert TOKENIZER.window(events, len(events))[0] is events
    part, bar = TOKENIZER.window(events, 7)
    assert (len(part), bar) == (7, 5)


@given(pieces(), st.integers(8, 64))
def test_windows_score_every_event_once(piece, context):
    events = TOKENIZER.encode(TOKENIZER.quantize(piece))
    scored = []
    for window, first in TOKENIZER.windows(events, context):
        assert len(window) <= context and window[0, ev.ONSET] == ev.BOS and first >= 1
        scored.append(window[first:])
    joined = np.concatenate(scored)
    # All but BOS, except meter and tempo events that the head of a window replaces.
    assert len(events) - 1 - 2 * len(scored) <= len(joined) <= len(events) - 1
    assert joined[-1, ev.ONSET] == ev.EOS
    notes = joined[NoteEvents.is_note(joined)]
    assert np.array_equal(notes[:, ev.PITCH :], events[NoteEvents.is_note(events)][:, ev.PITCH :])


def test_scored_events_have_half_a_context_of_history():
    events = TOKENIZER.encode(TOKENIZER.quantize(random_piece(0, 300)))
    context = 64
    for window, first in list(TOKENIZER.windows(events, context))[1:]:
        assert first >= (context - 3) // 2
        assert len(window) - first >= (context - 3) // 4 or window[-1, ev.ONSET] == ev.EOS
