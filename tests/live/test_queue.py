"""The queue on a fake clock, with drawn plans, latencies and polls."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.live.clock import MusicalClock
from sage_jax.live.queue import LONGEST, SKIPPED_AFTER, TOLERANCE, NoteQueue, PlannedNote

KEYS = [(0, 60), (0, 64), (33, 40), (128, 38)]
NOTES = st.builds(
    lambda tick, key, duration: PlannedNote(tick, *key, duration, 80),
    st.integers(0, 60), st.sampled_from(KEYS), st.integers(1, 30),
)  # fmt: skip


def note(tick: int, pitch: int = 60, duration: int = 6, program: int = 0) -> PlannedNote:
    return PlannedNote(tick, program, pitch, duration, 80)


def queue_of(qpm: float = 120.0) -> NoteQueue:
    return NoteQueue(MusicalClock(0.0, qpm))


def check(messages) -> None:
    """Every note-on has one note-off that is not before it; a key's messages are in order of time."""
    by_note, by_key = collections.defaultdict(list), collections.defaultdict(list)
    for message in messages:
        by_note[message.note].append(message)
        by_key[message.program, message.pitch].append(message)
    for on, off in by_note.values():
        assert on.is_on and not off.is_on and on.due <= off.due <= on.due + LONGEST
        assert (on.program, on.pitch) == (off.program, off.pitch) and off.velocity == 0 < on.velocity
    for each in by_key.values():
        assert [message.due for message in each] == sorted(message.due for message in each)
        assert [message.is_on for message in each] == [True, False] * (len(each) // 2)
    ons = collections.Counter((message.tick, message.program, message.pitch) for message in messages if message.is_on)
    assert max(ons.values(), default=1) == 1  # nothing sounds twice


PLANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 40), st.lists(NOTES, max_size=8), st.floats(0, 0.4), st.floats(-0.05, 0.2)),
    max_size=12,
)


@settings(max_examples=150)
@given(PLANS, st.sampled_from([60.0, 120.0, 200.0]))
def test_whatever_comes_when(plans, qpm):
    """Plans and polls at drawn times; each plan: start, length, notes, seconds until it comes, and lookahead of the poll."""
    queue, now, messages, late_when_put = queue_of(qpm), 0.0, [], set()
    for version, (start, length, notes, wait, lookahead) in enumerate(plans):
        now += wait
        planned = {each[:3]: each for each in notes if start <= each.tick < start + length}
        queue.put(start, start + length, planned.values(), version)
        late_when_put |= {key for key in planned if queue.clock.seconds(key[0]) < now - TOLERANCE}
        messages += queue.poll(now + lookahead, now)
        for each in queue.outcome().given:
            assert queue.clock.seconds(each.tick) < now + lookahead
    late_before = queue.late + queue.skipped
    while (due := queue.next_due()) is not None:
        now = max(now, due)
        messages += queue.poll(due + 1e-6, now)
    check(messages)
    assert queue.sounded == sum(message.is_on for message in messages)
    if not late_when_put and all(each[3] == 0 for each in plans):
        assert late_before == 0


@given(st.lists(NOTES, max_size=20), st.lists(NOTES, max_size=20), st.integers(0, 60), st.integers(0, 60))
def test_a_fresher_plan_replaces_its_range_and_leaves_no_ghost(old, new, start, stop):
    queue = queue_of()
    queue.put(0, 61, {each[:3]: each for each in old}.values(), 1)
    new = {each[:3]: each for each in new if start <= each.tick < stop}
    queue.put(start, max(start, stop), new.values(), 2)
    queue.put(0, 61, [note(30, 99)], 0)  # an older plan that comes late changes nothing
    expected = {each[:3] for each in old if not start <= each.tick < stop} | set(new)
    ons = [each for each in queue.poll(100.0, 0.0) if each.is_on]
    given, _ = queue.outcome()
    assert {each[:3] for each in given} == expected and len(ons) == len(given) == len(expected)


def test_late_notes_are_counted_and_skipped_but_note_offs_are_not():
    queue = queue_of()
    queue.put(0, 48, [note(0, duration=12), note(12, 62), note(14, 64), note(24, 65)], 1)
    assert [each.is_on for each in queue.poll(0.1, 0.0)] == [True]
    late = queue.clock.seconds(14) + 0.05
    messages = queue.poll(late, late)
    assert [(each.is_on, each.pitch) for each in messages] == [(False, 60), (True, 64)]
    assert (queue.sounded, queue.late, queue.skipped) == (2, 1, 1)
    assert max(queue.lateness) == pytest.approx(0.05) and max(queue.lateness) <= SKIPPED_AFTER
    assert [each.pitch for each in queue.outcome().dropped] == [62]
    ends = queue.poll(1.01, 1.0)
    assert [(each.is_on, each.pitch) for each in ends] == [(False, 64), (True, 65)]


def test_what_is_given_out_is_final():
    queue = queue_of()
    queue.put(0, 48, [note(0), note(24)], 1)
    queue.poll(queue.clock.seconds(6), 0.0)
    queue.put(0, 48, [note(3, 70), note(30, 71)], 2)  # the old plan has been given out up to tick 6
    assert queue.outcome().dropped == [note(3, 70)]
    assert [each.pitch for each in queue.poll(9.0, 0.0) if each.is_on] == [71]
    queue.put(48, 60, [note(48, 72)], 2)
    queue.put(48, 60, [note(48, 74)], 2)  # the same plan goes on
    assert [each.pitch for each in queue.poll(9.0, 2.0) if each.is_on] == [72, 74]
    with pytest.raises(ValueError, match="outside"):
        queue.put(0, 3, [note(3)], 3)


def test_a_taken_back_plan_does_not_open_what_was_given_out():
    queue = queue_of()
    queue.put(0, 48, [note(0)], 1)
    queue.poll(queue.clock.seconds(6), 0.0)
    queue.withdraw()
    queue.put(0, 48, [note(3, 70), note(9, 71)], 2)
    assert queue.outcome().dropped == [note(3, 70)]


def test_a_key_does_not_begin_before_its_last_note_off():
    queue = queue_of()
    queue.put(0, 1, [note(0)], 1)
    messages = queue.poll(0.3, 0.0)
    queue.put(3, 4, [note(3), note(3, 62)], 2)  # planned late, where no plan was
    messages += queue.poll(0.3, 0.2)
    assert [(each.is_on, each.pitch) for each in messages] == [(True, 60), (False, 60), (True, 62)]
    assert queue.outcome().dropped == [note(3)]


def test_panic_and_close_end_what_sounds():
    queue = queue_of()
    queue.put(0, 96, [note(0, duration=90), note(2, 62, 90), note(50, 64)], 1)
    assert len(queue.poll(0.2, 0.0)) == 2  # the second one is still to come
    queue.end_all(0.03)
    offs = queue.poll(0.05, 0.04) + queue.poll(0.2, 0.1)
    assert [(each.is_on, each.pitch, each.due) for each in offs] == [(False, 60, 0.03), (False, 62, queue.clock.seconds(2))]
    assert queue.is_silent and queue.next_due() is None
    queue.put(10, 20, [note(10, 65, 90)], 2)
    assert len(queue.poll(0.5, 0.4)) == 1
    queue.close(0.5)
    assert [each.is_on for each in queue.poll(0.0, 0.5)] == [False]
    queue.put(30, 40, [note(30)], 3)
    assert queue.poll(99.0, 0.5) == [] and queue.is_silent


def test_the_same_key_again_and_the_longest_length():
    queue = queue_of()
    queue.put(0, 900, [note(0, duration=24), note(12, duration=768)], 1)
    messages = queue.poll(0.6, 0.0)
    assert [(each.is_on, each.due) for each in messages] == [(True, 0.0), (False, 0.5), (True, 0.5)]
    assert messages[1].note == messages[0].note != messages[2].note
    assert queue.next_due() == 0.5 + LONGEST
    queue.clock.change_tempo(0.6, 60)  # the end is later in seconds
    queue.withdraw()
    check(messages + queue.poll(99.0, 0.6))


def test_withdrawn_ticks_can_be_planned_anew():
    queue = queue_of()
    queue.put(0, 48, [note(0), note(12), note(30)], 5)
    assert [(each.is_on, each.tick) for each in queue.planned(0.6)] == [(True, 0), (False, 6), (True, 12), (False, 18)]
    queue.poll(0.1, 0.0)
    queue.withdraw(10)
    assert [each.is_on for each in queue.poll(9.0, 0.2)] == [False]
    queue.put(220, 240, [note(220, 70)], 6)
    assert [each.pitch for each in queue.poll(19.0, 9.0) if each.is_on] == [70]
