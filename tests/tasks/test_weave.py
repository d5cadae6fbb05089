"""Two streams in one sequence: nothing is lost, each event is where the model knows it, and decisions are those of drawing."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sage_jax.tasks.config import TASKS, TasksConfig
from sage_jax.tasks.crop_items import CropItems
from sage_jax.tasks.mixture import Mixture
from sage_jax.tasks.weave import NO_TARGET, TARGET, Part, plain, weave
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.leads import LEADS, SPAN
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents
from tests.music.pieces import pieces

GRID = NoteEvents()
ROLES = RoleEvents.of(GRID)


@st.composite
def parts(draw):
    """(events of a crop of GRID, its items, a part of them)."""
    quantized = GRID.quantize(draw(pieces(max_notes=25)))
    events = GRID.encode(quantized)
    events = events if draw(st.booleans()) else events[: draw(st.integers(4, 40))]
    items = CropItems.of(events, GRID)
    assume(items.num_bars)
    own = np.array(draw(st.lists(st.booleans(), min_size=len(items), max_size=len(items))), bool)
    lead = draw(st.sampled_from(LEADS))
    first = draw(st.integers(0, items.num_bars - 1)) if lead is SPAN else 0
    last = draw(st.integers(first + 1, items.num_bars))
    start, stop = items.bars.start_of(first), items.bars.start_of(last)
    return events, items, Part(own, lead, start, stop, max(stop, items.end) if lead is SPAN else stop)


@settings(max_examples=150, deadline=None)
@given(parts())
def test_both_streams_hold_their_notes_and_changes(case):
    _, items, part = case
    woven = weave(items, part, ROLES)
    own, others = ROLES.split(woven.events)
    tick, kind = items.tick, items.rows[:, ev.INSTRUMENT]
    notes = lambda chosen: ROLES.notes_of(items.rows[chosen].astype(np.int64), tick[chosen]).tolist()
    is_own = part.own & items.is_note & (tick < part.stop)
    mine = NoteEvents.decode(ROLES, own)
    assert mine.notes.tolist() == notes(is_own)
    known = part.lead.keys(tick, items.bars, ROLES.ticks_per_quarter, part.start) < part.stop
    is_given = items.is_note & ~is_own & (tick < part.until) & known
    has_length = ~is_given | (not part.lead.quarters_late)
    items.rows[~has_length, ev.DURATION] = ev.FIRST
    assert NoteEvents.decode(ROLES, others).notes.tolist() == notes(is_given)
    given = woven.events[ROLES.is_given(woven.events) & (woven.events[:, ev.VELOCITY] >= ev.FIRST)]
    assert ((given[:, ev.DURATION] >= ev.FIRST) == has_length[is_given]).all()
    assert len(mine.meters) <= 1 + (kind == ev.METER_CHANGE).sum()
    assert ROLES.decode(woven.events).notes.tolist() == notes(is_own | is_given)


@settings(max_examples=150, deadline=None)
@given(parts())
def test_every_event_comes_when_it_is_known_and_every_wait_is_a_decision(case):
    _, items, part = case
    events, floors, keys = weave(items, part, ROLES)
    clock, known, decided = EventClock(ROLES), -1, False
    for number, (event, floor, key) in enumerate(zip(events, floors, keys, strict=True)):
        if event[0] in (ev.BOS, ev.EOS) or ROLES.is_header(event):
            if event[0] == ev.EOS and part.stop > max(clock.state.tick, part.start):
                bars, position = divmod(part.stop - clock.state.bar_start, clock.state.bar_ticks)
                assert floor == ev.FIRST + bars * ROLES.max_position + position
            continue
        if number < ROLES.HEAD:
            clock.advance(event)
            continue
        assert key >= known  # in the order in which they are known
        is_own = not ROLES.is_given(event)
        if floor > TARGET:
            # Nothing own was drawn before the key: the drawn onset would lie there or later.
            bars, position = divmod(floor - ev.FIRST, ROLES.max_position)
            assert clock.state.bar_start + bars * clock.state.bar_ticks + position == key > clock.state.tick
            assert key > part.start
        if is_own:
            state = clock.advance(event)
            is_change = event[ev.INSTRUMENT] in (ev.METER_CHANGE, ev.TEMPO_CHANGE)
            assert key == state.tick and (floor == TARGET) == (not is_change and state.tick >= part.start)
        decided = (decided and key == known) or floor > TARGET
        if floor == NO_TARGET and key > part.start and key > clock.state.tick:
            assert decided  # an event of the same key before it was the decision
        known = key


@settings(max_examples=100, deadline=None)
@given(pieces(max_notes=30))
def test_a_plain_sequence_is_that_of_note_events_with_a_rest_in_each_silent_bar(piece):
    quantized = GRID.quantize(piece)
    woven = plain(GRID.encode(quantized), ROLES)
    assert np.array_equal(woven.events, ROLES.encode(quantized)) and ROLES.decode(woven.events) == quantized
    assert (woven.floors[ROLES.HEAD :] == TARGET).all() and (woven.floors[: ROLES.HEAD] == NO_TARGET).all()


@settings(max_examples=60, deadline=None)
@given(pieces(max_notes=40), st.sampled_from(TASKS), st.integers(0, 2**32 - 1), st.sampled_from([24, 64, 4096]))
def test_the_mixture_makes_sequences_that_fit_of_notes_that_are_there(piece, task, seed, capacity):
    quantized = GRID.quantize(piece)
    crop = GRID.encode(quantized)
    mixture = Mixture(TasksConfig(**{name: float(name == task) for name in TASKS}), GRID, ROLES, capacity)
    made = mixture(crop, np.random.default_rng(seed))
    assert np.array_equal(made, mixture(crop, np.random.default_rng(seed)))
    assert np.array_equal(mixture.fixed(crop), mixture.fixed(crop.copy()))
    notes = {tuple(note) for note in quantized.notes.tolist()}
    shortest = quantized.notes.copy()
    shortest["duration"] = ROLES.durations[0]  # of one that a model learns of late
    known = notes | {tuple(note) for note in shortest.tolist()} if task == "live" else notes
    assert {tuple(note) for note in ROLES.decode(made[:, :5]).notes.tolist()} <= known
    assert (made[:, 5] < ROLES.vocab_sizes[ev.ONSET]).all() and (made[:, :5] < ROLES.vocab_sizes).all()
    assert len(made) <= capacity or np.array_equal(made[:, :5], plain(crop, ROLES).events)
