"""Streams and sessions: a player and the model write a piece in turns."""

import itertools

import numpy as np
import pytest

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.session import Session, stream
from sage_jax.errors import UserError
from sage_jax.tokenizers.incremental import event_decoder
from tests.decoding.small import CHUNK, CONTEXT, DELAY, FLAT, NESTED, TOKENIZER, WILD, assert_canonical, engine_of, prompt, run
from tests.models.small import join_values

ARCHITECTURES = pytest.mark.parametrize("fields", [FLAT, NESTED, DELAY], ids=join_values)
MANY_NOTES = [(6 * number, 40, 50 + number % 7, 12, 70) for number in range(3 * CHUNK)]


def session_of(rows: int = 1, fields: dict = FLAT, **settings) -> Session:
    return Session(Scheduler(engine_of(rows, **fields), interleaved=True), sampling=WILD, **settings)


@ARCHITECTURES
def test_stream_equals_the_fused_loop(fields):
    """Also after its window has moved."""
    request = Request(prompt(2), Limits(allow_eos=False), WILD, 140, 3)
    streamed = list(stream(engine_of(**fields), request))
    (take,) = run(engine_of(**fields), request)
    decoder = event_decoder(TOKENIZER)
    expected = [decoder.push(event) for event in np.concatenate([request.events, take.events])][len(request.events) :]
    assert len(streamed) == 140 and streamed == expected


def test_stream_that_is_left_frees_its_row():
    engine = engine_of(**FLAT)
    request = Request(prompt(1), Limits(allow_eos=False), WILD, 100, 3)
    first, again = (list(itertools.islice(stream(engine, request), 5)) for _ in range(2))
    assert first == again and len(first) == 5
    with pytest.raises(UserError, match="Mmt"):
        next(stream(engine_of(tokenizer="mmt", architecture="pooled", kv_sharing="mqa"), request))


@ARCHITECTURES
def test_rollback_and_the_same_draws_equal_never_having_drawn(fields):
    with session_of(fields=fields, seed=4) as session:
        session.push(MANY_NOTES[:10])
        drawn = list(session.draw(until=80))
        whole = session.events
        assert len(whole) > 40 and [event.tick for event in drawn] == sorted(event.tick for event in drawn)
        for to in (drawn[len(drawn) // 2].tick, session.tick, MANY_NOTES[9][0] + 1):
            session.rollback(to)
            assert session.tick < to and len(session.events) < len(whole)
            list(session.draw(until=80))
            assert np.array_equal(session.events, whole)
        session.rollback(MANY_NOTES[9][0] + 1)
        assert np.array_equal(session.piece.notes["onset"], [note[0] for note in MANY_NOTES[:10]])
        session.push(MANY_NOTES[12:14])
        list(session.draw(until=60))
        other = session.events
    with session_of(fields=fields, seed=4) as session:
        for note in [*MANY_NOTES[:10], *MANY_NOTES[12:14]]:
            session.push(note)
        list(session.draw(until=60))
        assert np.array_equal(session.events, other)


def test_draws_are_within_their_bounds():
    with session_of() as session:
        session.push(MANY_NOTES[:4])
        for ticks, bars, wait in ((500, None, 0), (None, 20, 0), (1500, None, 600), (None, 40, 500)):
            tick, bar = session.tick, session.clock.state.bar
            until, until_tick = bars and bar + bars, ticks and tick + ticks
            events = list(session.draw(until=until, until_tick=until_tick, not_before=tick + wait))
            assert events and all(event.tick >= tick + wait or event.kind == "rest" for event in events)
            assert all(event.bar < (until or 10**6) and event.tick < (until_tick or 10**6) for event in events)
        assert_canonical(session.events)
        assert len(session.events) > 20


def test_push_of_more_than_a_chunk_equals_single_notes():
    wholes = []
    for groups in ([MANY_NOTES], [[note] for note in MANY_NOTES], [MANY_NOTES[:3], MANY_NOTES[3:]]):
        with session_of(seed=2) as session:
            for group in groups:
                session.push(group)
            list(session.draw(until=60))
            wholes.append(session.events)
    assert all(np.array_equal(each, wholes[0]) for each in wholes) and len(wholes[0]) > len(MANY_NOTES) + 10


@ARCHITECTURES
def test_only_events_that_were_taken_remain(fields):
    with session_of(fields=fields, seed=1) as session:
        draw = session.draw(until=80)
        taken = [next(draw) for _ in range(7)]
        before = session.events
        session.push((session.tick + 30, 5, 60, 12, 70))
        assert np.array_equal(session.events[: len(before)], before) and len(before) == 3 + len(taken)
        assert session.piece.notes[-1]["onset"] == taken[-1].tick + 30
        with pytest.raises(UserError, match="draw"):
            next(draw)
        list(session.draw(until=80))
        whole = session.events
    with session_of(fields=fields, seed=1) as session:
        assert list(itertools.islice(session.draw(until=80), 7)) == taken
        session.push((session.tick + 30, 5, 60, 12, 70))
        list(session.draw(until=80))
        assert np.array_equal(session.events, whole)
        assert_canonical(whole)


@ARCHITECTURES
def test_window_moves_while_a_session_draws(fields):
    """The events are those of a request with the same settings."""
    with session_of(fields=fields, seed=6) as session:
        opening = session.events
        taken = list(itertools.islice(session.draw(until=10**6), 3 * CONTEXT))
        drawn = session.events[len(opening) :]
        assert len(taken) == len(drawn) == 3 * CONTEXT
        assert_canonical(session.events)
        with pytest.raises(UserError, match="to is tick 0"):
            session.rollback(0)
        session.rollback(session.tick - 10)
        session.push([(session.tick + 1 + note[0], *note[1:]) for note in MANY_NOTES])
        assert len(list(session.draw(until=session.clock.state.bar + 20)))
        assert_canonical(session.events)
    limits = Limits(stop_bar=10**6, allow_eos=False)
    (take,) = run(engine_of(**fields), Request(opening, limits, WILD, len(drawn), 6))
    assert np.array_equal(take.events, drawn)


def test_a_session_opens_while_another_moves_to_a_new_window():
    """It draws what it draws alone."""
    drawn = []
    for with_other in (False, True):
        scheduler = Scheduler(engine_of(3, **FLAT), interleaved=True)
        session = Session(scheduler, sampling=WILD, seed=6)
        draw = session.draw(until=10**6)
        while not scheduler.is_staging:
            next(draw)
        if with_other:
            other = Session(scheduler, sampling=WILD, seed=7)
        assert len(list(itertools.islice(draw, CONTEXT))) == CONTEXT
        drawn.append(session.events)
    assert np.array_equal(*drawn)
    other.push(MANY_NOTES)
    assert list(other.draw(until=60)) and other.tick > MANY_NOTES[-1][0]


def test_sessions_on_one_scheduler_draw_what_they_draw_alone():
    def play(sessions: list[Session]) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        for session, notes in zip(sessions, (MANY_NOTES, MANY_NOTES[:5]), strict=False):
            session.push(notes)
        draws = [session.draw(until=60) for session in sessions]
        while draws:  # events of one, then of another
            draw = draws[rng.integers(len(draws))]
            if next(draw, None) is None:
                draws.remove(draw)
        for session in sessions:
            session.rollback(session.tick - 100)
            list(session.draw(until=70))
        return [session.events for session in sessions]

    shared = Scheduler(engine_of(3, **FLAT), interleaved=True)
    sessions = [Session(shared, sampling=WILD, seed=seed) for seed in (1, 2)]
    together = play(sessions)
    with Session(shared), pytest.raises(UserError, match="engine.rows is 3"):
        Session(shared)
    for session in sessions:
        session.close()
    notes = (MANY_NOTES, MANY_NOTES[:5])
    for seed, events in zip((1, 2), together, strict=True):
        with session_of(seed=seed) as alone:
            alone.push(notes[seed - 1])
            list(alone.draw(until=60))
            alone.rollback(alone.tick - 100)
            list(alone.draw(until=70))
            assert np.array_equal(alone.events, events)


@pytest.mark.parametrize("fields", [FLAT, NESTED], ids=join_values)
def test_sessions_that_are_read_together_draw_what_they_draw_alone(fields, monkeypatch):
    """Queues of different lengths, of which some need several chunks; one session draws while the others are read."""
    lengths, reads = (3 * CHUNK, 5, CHUNK + 1, 7, 2, 2 * CHUNK), []
    engine = engine_of(6, **fields)
    prefill = Engine.prefill
    monkeypatch.setattr(Engine, "prefill", lambda self, *slots: (reads.append(slots), prefill(self, *slots))[1])
    scheduler = Scheduler(engine, interleaved=True)
    sessions = [Session(scheduler, sampling=WILD, seed=seed, reads_at_once=False) for seed in range(6)]
    reads.clear()
    draws = []
    for session, length in zip(sessions, lengths, strict=True):
        session.push(MANY_NOTES[:length])
        draws.append(session.draw(until_tick=session.tick + 600))
    assert not reads  # pushes and draws wait to be read together
    first = next(draws[0])
    assert [len(slots) for slots in reads] == [5, 2, 1]  # queues of at most two events are read note by note
    drawn = [[first, *draws[0]], *(list(draw) for draw in draws[1:])]
    for number, length in enumerate(lengths):
        with session_of(fields=fields, seed=number) as alone:
            alone.push(MANY_NOTES[:length])
            assert list(alone.draw(until_tick=alone.tick + 600)) == drawn[number]
            assert np.array_equal(alone.events, sessions[number].events)


def test_draws_that_were_left_may_run_on_beyond_the_window():
    """A session goes on from what was taken, while the row of its draw has moved to another window."""
    scheduler = Scheduler(engine_of(3, **FLAT), interleaved=True)
    left, other = (Session(scheduler, sampling=WILD, seed=seed) for seed in (1, 2))
    draw = left.draw(until=10**6)
    taken = [next(draw) for _ in range(9)]
    assert len(list(itertools.islice(other.draw(until=10**6), 2 * CONTEXT))) == 2 * CONTEXT
    left.push(notes := [(left.tick + 40 + note[0], *note[1:]) for note in MANY_NOTES])
    list(left.draw(until=left.clock.state.bar + 20))
    with session_of(seed=1) as session:
        assert list(itertools.islice(session.draw(until=10**6), len(taken))) == taken
        session.push(notes)
        list(session.draw(until=session.clock.state.bar + 20))
        assert np.array_equal(left.events, session.events)
    assert len(list(itertools.islice(left.draw(until=10**6), CONTEXT - len(left.events) - 5)))
    left.close()  # perhaps while its next window is prefilled
    assert len(list(other.draw(until=other.clock.state.bar + 30)))


def test_notes_may_follow_a_rest_within_its_bar():
    with session_of() as session:
        session.push((0, 0, 60, 12, 70))
        assert any(event.kind == "rest" for event in session.draw(until=40, not_before=48 * 20))
        session.rollback(1)
        draw = session.draw(until=40, not_before=48 * 20)
        assert next(draw).kind == next(draw).kind == "rest"
        tick, count = session.tick, len(session.events)
        with pytest.raises(UserError, match="repeats"):
            session.push((0, 0, 60, 12, 70))
        assert len(session.events) == count and session.tick == tick
        session.push((tick + 7, 0, 62, 12, 70))
        assert session.piece.notes[-1]["onset"] == tick + 7
        assert_canonical(session.events)


def test_bad_input_leaves_the_session_usable():
    with session_of(seed=9) as session:
        session.push(MANY_NOTES[:6])
        list(session.draw(until=20))
        tick, count = session.tick, len(session.events)
        mistakes = [
            (lambda: session.push((tick - 20, 0, 60, 12, 70)), "sorts before"),
            (lambda: session.push((session.tick + 10, 129, 60, 12, 70)), "program"),
            (lambda: session.push((session.tick + 10, 0, 200, 12, 70)), "pitch"),
            (lambda: session.draw(), "until"),
            (lambda: session.draw(until=5, until_tick=500), "until"),
            (lambda: session.draw(until=0), "until is 0"),
            (lambda: session.draw(until_tick=session.tick), "until is"),
            (lambda: session.draw(until_tick=session.tick + 20, not_before=session.tick + 30), "not_before"),
            (lambda: session.draw(until=session.clock.state.bar + 2, not_before=session.tick + 96), "not_before"),
            (lambda: session.rollback(-1), "to is -1"),
            (lambda: Session(session._scheduler), "engine.rows"),
            (lambda: Session(session._scheduler, programs=[129]), "programs"),
            (lambda: Session(session._scheduler, meter=(17, 3)), "meter"),
        ]
        for mistake, field in mistakes:
            before = session.events
            with pytest.raises((UserError, ValueError), match=field):
                mistake()
            assert np.array_equal(session.events, before) and session.tick == session.clock.state.tick
            list(session.draw(until=session.clock.state.bar + 5))
        assert len(session.events) > count + 10
        assert_canonical(session.events)


@ARCHITECTURES
def test_a_session_may_keep_its_tempo_and_meter(fields):
    """Draws of another number differ, also in a session that has seen the same."""
    found = []
    for number in (0, 1, 1):
        with session_of(fields=fields, allow_changes=False) as session:
            draw = session.draw(until=10**6, number=number, programs=[3, 40])
            found.append(list(itertools.islice(draw, 60)))
    assert all({event.kind for event in events} <= {"note", "rest"} for events in found)
    assert {event.note.program for event in found[0] if event.note} <= {3, 40}
    assert found[0] != found[1] == found[2]


@ARCHITECTURES
def test_a_draw_may_have_to_begin_in_time(fields):
    """Within the ticks that are wanted, also after rests; what follows is free. An event that is there lifts the bound."""
    began, later = set(), set()
    with session_of(fields=fields, allow_changes=False) as session:
        for number, first in enumerate([7, 100, 101, 103, 900] * 4):
            session.rollback(0)
            draw = session.draw(until=10**6, not_before=first, begin_before=first + 3, number=number)
            notes = [event.tick - first for event in itertools.islice(draw, 12) if event.note]
            began.add(notes[0])
            later |= {tick > 2 for tick in notes[1:]}
        assert began <= {0, 1, 2} and len(began) > 1 and True in later
        here = session.tick
        assert next(session.draw(until=10**6, not_before=here, begin_before=here + 1)).tick >= here
        with pytest.raises(UserError, match="begin_before is 5"):
            session.draw(until_tick=here + 500, not_before=here + 100, begin_before=5)


def test_replace_equals_rollback_and_push():
    played = []
    for is_one_call in (True, False):
        with session_of(seed=5) as session:
            session.push(MANY_NOTES[:10])
            taken = list(itertools.islice(session.draw(until=10**6), 12))
            assert len(taken) == 12
            if is_one_call:
                session.replace(MANY_NOTES[7][0], MANY_NOTES[7:14])
            else:
                session.rollback(MANY_NOTES[7][0])
                session.push(MANY_NOTES[7:14])
            list(session.draw(until=session.clock.state.bar + 10))
            played.append(session.events)
            with pytest.raises(UserError, match="start is -1"):
                session.replace(-1, [])
            session.replace(48, [(60, 0, 60, 12, 80)], [(72, 91.0)], [(96, (3, 4))])
            assert session.piece.tempos["tick"].tolist() == [0, 72]
            assert session.piece.meters.tolist() == [(0, 4, 4), (96, 3, 4)]
            assert_canonical(session.events)
    assert np.array_equal(*played)
