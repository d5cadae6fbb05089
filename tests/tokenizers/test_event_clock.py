"""The clock knows the tick, the bar and the seconds of each event, and goes back as if nothing had come after."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.note_events import NoteEvents
from tests.tokenizers.items import before, quantized_pieces

TOKENIZER = NoteEvents()
STEP = TOKENIZER.max_position
NOTE = (ev.FIRST, ev.FIRST_PROGRAM, ev.FIRST_PITCH + 60, ev.FIRST, ev.FIRST)
REST = TOKENIZER.rest
BOS, EOS, PAD = ((kind,) * 5 for kind in (ev.BOS, ev.EOS, ev.PAD))


def at(bars: int, position: int, event=NOTE) -> tuple[int, ...]:
    return (ev.FIRST + bars * STEP + position, *event[1:])


def clock_after(events, tokenizer: NoteEvents = TOKENIZER) -> EventClock:
    clock = EventClock(tokenizer)
    for event in events:
        clock.advance(event)
    return clock


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_seconds_are_those_of_the_piece(encoded, data):
    tokenizer, piece = encoded
    clock = clock_after(tokenizer.encode(piece), tokenizer)
    ticks = [*piece.tempos["tick"].tolist(), *data.draw(st.lists(st.integers(0, 10_000), max_size=20))]
    assert [clock.seconds(tick) for tick in ticks] == piece.seconds(ticks).tolist()


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_rollback_and_copy_give_the_state_after_the_events_that_remain(encoded, data):
    tokenizer, piece = encoded
    events = tokenizer.encode(piece)
    kept = data.draw(st.integers(0, len(events)))
    clock = clock_after(events, tokenizer)
    whole = clock.copy()
    clock.rollback(kept)
    fresh = clock_after(events[:kept], tokenizer)
    assert len(clock) == kept and clock.state == fresh.state and len(whole) == len(events)
    assert [clock.advance(event) for event in events[kept:]] == [fresh.advance(event) for event in events[kept:]]
    assert whole.state == clock.state


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_rollback_to_a_tick_leaves_the_events_of_the_items_before_it(encoded, data):
    tokenizer, piece = encoded
    events = tokenizer.encode(piece)
    onsets = [1, *piece.notes["onset"].tolist(), *piece.meters["tick"].tolist()]
    tick = max(1, data.draw(st.sampled_from(onsets)) + data.draw(st.integers(-1, 1)))
    stop = data.draw(st.integers(len(events) // 2, len(events)))  # possibly inside a chain of rests
    clock = clock_after(events[:stop], tokenizer)
    kept = clock.rollback_to(tick)
    assert kept == len(clock)
    expected = tokenizer.encode(before(piece, tick))[:-1]
    if len(expected) <= stop:
        assert np.array_equal(events[:kept], expected)
    else:
        remaining = events[:stop]
        while remaining[-1, ev.INSTRUMENT] == ev.REST:
            remaining = remaining[:-1]
        assert np.array_equal(events[:kept], remaining)


def test_rollback_to_tick_zero_leaves_bos():
    clock = clock_after([BOS, at(0, 0), at(1, 0), EOS, PAD])
    assert clock.rollback_to(0) == 1
    assert EventClock(TOKENIZER).rollback_to(0) == 0


@given(st.data())
def test_any_events_that_are_in_order_of_time_have_the_ticks_of_decode(data):
    """Positions beyond the end of the bar, several changes at one tick and rests of no bars included."""
    ids = st.integers(0, 5 * STEP), st.integers(ev.REST, ev.FIRST_PROGRAM), st.integers(0, len(TOKENIZER.meters) - 1)
    values = {
        ev.REST: lambda _: ev.NONE,
        ev.METER_CHANGE: lambda value: TOKENIZER.first_meter + value,
        ev.TEMPO_CHANGE: lambda value: ev.FIRST_TEMPO + value,
        ev.FIRST_PROGRAM: lambda value: ev.FIRST_PITCH + value,
    }
    clock, events, ticks = EventClock(TOKENIZER), [], []
    for onset, instrument, value in data.draw(st.lists(st.tuples(*ids), max_size=20)):
        rest = [ev.FIRST] * 2 if instrument >= ev.FIRST_PROGRAM else [ev.NONE] * 2
        event = [ev.FIRST + onset % ((TOKENIZER.max_bar_step + 1) * STEP), instrument, values[instrument](value), *rest]
        try:
            tick = clock.advance(event).tick
        except ValueError:  # it lies before the last event
            bar_line = clock.state.bar_start + (event[0] - ev.FIRST) // STEP * clock.state.bar_ticks
            assert bar_line + (event[0] - ev.FIRST) % STEP < clock.state.tick
            continue
        events.append(event)
        ticks.append(tick)
        note = at(0, clock.state.position)  # shows where decode places the event before it
        assert TOKENIZER.decode(np.array([*events, note])).notes["onset"].max() == tick == clock.copy().advance(note).tick
    assert ticks == sorted(ticks)
    piece = TOKENIZER.decode(np.array(events).reshape(-1, 5))
    bar, state = piece.bar_of(clock.state.tick), clock.state
    assert bar == state.bar + state.position // state.bar_ticks
    assert [clock.seconds(tick) for tick in ticks] == piece.seconds(ticks).tolist()


@pytest.mark.parametrize(
    ("events", "event", "message"),
    [
        ([BOS, at(0, 12)], at(0, 11), "tick 11 follows one at tick 12"),
        ([BOS, EOS], NOTE, "follows EOS"),
        ([BOS, EOS], EOS, "follows EOS"),
        ([BOS], (ev.FIRST, ev.NONE, ev.NONE, ev.NONE, ev.NONE), "instrument"),
        ([BOS], (9999, *NOTE[1:]), "the id"),
        ([BOS], NOTE[:4], r"5 ids; this array has the shape \[4\]"),
    ],
)
def test_an_event_that_can_not_come_next_is_refused_and_not_counted(events, event, message):
    clock = clock_after(events)
    state = clock.state
    with pytest.raises(ValueError, match=message):
        clock.advance(event)
    assert len(clock) == len(events) and clock.state == state


def test_a_clock_goes_back_only_to_events_and_ticks_that_there_are():
    clock = clock_after([BOS, REST])
    for events in (-1, 3):
        with pytest.raises(ValueError, match=f"2 events; it can't go back to {events}"):
            clock.rollback(events)
    with pytest.raises(ValueError, match="tick -1"):
        clock.rollback_to(-1)
    assert clock.state.tick == 3 * 48 and len(clock) == 2
