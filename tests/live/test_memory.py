"""What a live session remembers of each note is small, so that hours of playing change nothing."""

import tracemalloc

import numpy as np
import pytest

from sage_jax.live.clock import MusicalClock
from sage_jax.live.player_notes import PlayerNotes
from sage_jax.live.queue import NoteQueue, PlannedNote
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.note_events import NoteEvents

TOKENIZER = NoteEvents()
NOTES = 1_500


def played(count: int):
    clock = MusicalClock(0.0, 120.0)
    player = PlayerNotes(clock, TOKENIZER.grid)
    for number in range(count):
        second = number / 10 + 1e-3 * number % 7
        player.on(number % 128, 80, number % 16, second)
        player.off(number % 128, number % 16, second + 0.05)
        player.write(second + 0.1)
    return player


def queued(count: int):
    clock = MusicalClock(0.0, 120.0)
    queue = NoteQueue(clock)
    for number in range(count):
        queue.put(number, number + 1, [PlannedNote(number, number % 16, number % 128, 3, 80)], number)
        queue.poll(clock.seconds(number + 1), clock.seconds(number + 1) - 0.2)
        queue.outcome()
    return queue


def counted(count: int):
    clock = EventClock(TOKENIZER)
    note = np.array([ev.FIRST + TOKENIZER.max_position, ev.FIRST_PROGRAM, ev.FIRST_PITCH, ev.FIRST, ev.FIRST])
    for _ in range(count):
        clock.advance(note)
    return clock


@pytest.mark.parametrize("play", [played, queued, counted])
def test_a_note_takes_few_bytes(play):
    play(8)  # what is made once
    sizes = []
    for count in (NOTES, 2 * NOTES):
        tracemalloc.start()
        kept = play(count)
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        del kept
    assert sizes[1] - sizes[0] < 100 * NOTES
