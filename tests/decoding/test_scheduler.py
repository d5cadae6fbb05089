"""Rows that join, leave and move to new windows: each draws what it draws alone, and nothing is compiled."""

import jax
import numpy as np
import pytest

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Continuation, Progress, Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.session import Session
from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS
from tests.decoding.small import (
    CAPACITY,
    CONTEXT,
    DELAY,
    FLAT,
    NESTED,
    TOKENIZER,
    WILD,
    assert_canonical,
    engine_of,
    prompt,
    run,
)
from tests.models.small import join_values

ENDLESS = Limits(allow_eos=False)


def random_request(rng: np.random.Generator, long: bool = False) -> Request:
    """A prompt, which may exceed the context, with settings of its own."""
    bars = int(rng.integers(1, 12))
    events = prompt(bars, int(rng.integers(100)))
    sampling = SamplingConfig(
        temperature=float(rng.uniform(0.5, 3)),
        top_k=int(rng.choice([0, 0, 5])),
        top_p=float(rng.choice([1, 0.9])),
        min_p=float(rng.choice([0, 0, 0.02])),
    )
    limits = Limits(
        first_bar=int(rng.integers(0, bars + 2)),
        stop_bar=None if long else [None, bars + 6][rng.integers(2)],
        first_tick=int(rng.integers(0, 48 * bars)),
        stop_tick=None if long else [None, 48 * bars + 300][rng.integers(2)],
        allow_eos=bool(not long and rng.integers(2)),
        programs=[None, [0, 33, 40, DRUMS], [*range(60)]][rng.integers(3)],
    )
    return Request(events, limits, sampling, 150 if long else int(rng.integers(1, 60)), int(rng.integers(1000)))


def at_random(scheduler: Scheduler, requests: list[Request], rng: np.random.Generator) -> list[Continuation]:
    """The continuations of requests that are submitted between turns of random length."""
    waiting, found = list(requests), {}
    while waiting or scheduler.busy:
        if waiting and (not scheduler.busy or rng.random() < 0.3):
            scheduler.submit(waiting.pop(0))
        for take in scheduler.turn(max_steps=int(rng.choice([1, 1, 5, 1000]))):
            found[id(take.request)] = take
    return [found[id(request)] for request in requests]


@pytest.mark.parametrize("fields", [FLAT, NESTED, DELAY], ids=join_values)
def test_row_alone_equals_row_among_others(fields):
    """Across windows and, for the flat model, capacities; interleaved or not."""
    rng = np.random.default_rng(5)
    requests = [random_request(rng, long=number % 4 == 1) for number in range(9)]
    alone = [run(engine_of(1, **fields), request)[0] for request in requests]
    assert sum(len(request.events) + len(take.events) > CONTEXT for request, take in zip(requests, alone, strict=True)) >= 2
    crowd = engine_of(3, 64 if fields == FLAT else CAPACITY, **fields)
    found = [run(crowd, *requests)]
    assert crowd.capacity == crowd.capacities[0]  # after the reset
    for interleaved in (False, True):
        scheduler = Scheduler(crowd.sibling(), interleaved=interleaved)
        found.append(at_random(scheduler, requests, np.random.default_rng(6)))
        assert scheduler.engine.capacity == CAPACITY
    for takes in found:
        for number, (one, other) in enumerate(zip(takes, alone, strict=True)):
            assert np.array_equal(one.events, other.events) and one.finished == other.finished, number
    for request, take in zip(requests, alone, strict=True):
        is_complete = not len(take.events) or take.events[-1, 0] != 2
        assert_canonical(np.concatenate([request.events, take.events[: None if is_complete else -1]]))


@pytest.mark.parametrize("fields", [FLAT, DELAY], ids=join_values)
def test_gap_between_two_events_is_short_while_the_window_moves_and_a_row_joins(fields):
    """In turns of the scheduler, each with one event step and at most one chunk of a prefill.

    In the delay pattern a new window begins without the attributes of incomplete events, so that its first event takes longer.
    """
    scheduler = Scheduler(engine_of(3, CAPACITY, **fields), interleaved=True)
    player = scheduler.submit(Request(prompt(2), ENDLESS, WILD, 330, 1))
    window, turns, gap, longest, moves, drawn = None, 0, 0, 0, 0, 0
    while scheduler.busy:
        scheduler.turn(max_steps=1)
        turns += 1
        gap = 0 if player.outbox else gap + 1
        drawn += len(player.outbox)
        player.outbox.clear()
        if drawn and drawn < 330:
            longest = max(longest, gap)
        if player.window is not window:
            window, moves = player.window, moves + 1
        if turns % 40 == 20 and drawn < 250:
            scheduler.submit(Request(prompt(6, turns), ENDLESS, WILD, 30, turns))
    assert drawn == 330 and moves > 4 and longest <= max(3, scheduler.engine.decoder.lag + 1)


def test_what_a_moving_row_draws_is_fetched_by_the_chunk(monkeypatch):
    """Each fetch waits for the device. A move has one for its cut, for each chunk, and for the rest."""
    engine, fetches = engine_of(3, CAPACITY, **FLAT), []
    scheduler, fetch = Scheduler(engine, interleaved=True), engine.fetch_events
    monkeypatch.setattr(engine, "fetch_events", lambda *given: (fetches.append(given), fetch(*given))[1])
    player = scheduler.submit(Request(prompt(2), ENDLESS, WILD, 330, 1))
    window, moves = player.window, 0
    while scheduler.busy:
        scheduler.turn(max_steps=1)
        window, moves = player.window, moves + (player.window is not window)
    assert moves > 4 and len(fetches) <= 4 * moves


@pytest.mark.parametrize("is_open", [False, True])
def test_a_player_draws_while_a_long_prompt_is_read(is_open, monkeypatch):
    """One chunk is read before each event step, and none is longer, whether the prompt is a session's or a request's."""
    request, engine = Request(prompt(20, 4), ENDLESS, WILD, 20, 1), engine_of(3, **FLAT)
    monkeypatch.setattr(engine, "begin_staged", None)
    scheduler, work = Scheduler(engine, interleaved=True), []
    player = scheduler.submit(Request(prompt(2), ENDLESS, WILD, 60, 2))
    while not player.outbox:
        scheduler.turn(max_steps=1)
    for name in ("decode", "prefill_staged"):
        method = getattr(engine, name)
        monkeypatch.setattr(engine, name, lambda *given, name=name, method=method: (work.append(name), method(*given))[1])
    joined = scheduler.open(request) if is_open else scheduler.submit(request)
    while scheduler.busy:
        scheduler.turn(max_steps=1)
    chunks = -(-len(joined.window.given) // engine.stage_chunk)
    assert chunks > 2 and work[: 2 * chunks] == ["prefill_staged", "decode"] * chunks
    assert "prefill_staged" not in work[2 * chunks :]
    assert np.array_equal([*player.outbox], run(engine_of(**FLAT), player.request)[0].events)
    assert np.array_equal([*joined.outbox], run(engine_of(**FLAT), request)[0].events)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("max_steps", [1, 1000])
def test_a_piece_may_end_with_the_event_that_fills_its_context(rows, max_steps):
    """While the row's next window is staged."""
    request = Request(prompt(30, 5)[:92], Limits(), SamplingConfig(temperature=9.0), 100, 277)
    (expected,) = run(engine_of(rows, **FLAT), request)
    assert expected.finished and len(request.events) + len(expected.events) == CONTEXT
    scheduler, found = Scheduler(engine_of(rows, **FLAT), interleaved=True), []
    scheduler.submit(request)
    while scheduler.busy:
        found += scheduler.turn(max_steps=max_steps)
    assert len(found) == 1 and np.array_equal(found[0].events, expected.events)


def test_a_window_that_is_read_anew_is_read_in_one_way_whatever_other_rows_do(monkeypatch):
    """Many events at once, also while another row moves to a new window."""
    begun: list[list[int]] = []
    for is_moving in (False, True):
        engine = engine_of(3, **FLAT)
        scheduler = Scheduler(engine, interleaved=True)
        row = scheduler.open(request := Request(prompt(4), ENDLESS, WILD, 10, 1))
        if is_moving:
            scheduler.submit(Request(prompt(6, 2), ENDLESS, WILD, 300, 2))
            while not (scheduler.is_staging and scheduler.totals.row_steps > 150):
                scheduler.turn(max_steps=1)
        begun.append([])
        begin = engine.begin_staged
        monkeypatch.setattr(engine, "begin_staged", lambda *given, begin=begin: (begun[-1].append(given[0]), begin(*given))[1])
        scheduler.revise(row, 1, prompt(25, 3)[1:], request, row.request.events)
        assert scheduler.restarts == 1 and row in [each for _, each in scheduler._batch]
    assert begun[0] == begun[1] and len(begun[0]) == 1


def test_rows_are_prefilled_together_where_no_player_waits(monkeypatch):
    """New requests of any lengths, and rows that need a new window."""
    engine, chunks = engine_of(3, CAPACITY, **FLAT), []
    prefill = engine.prefill_staged
    monkeypatch.setattr(engine, "prefill_staged", lambda: (chunks.append(None), prefill()))
    requests = [Request(prompt(3, number), ENDLESS, WILD, 130, number) for number in range(6)]
    together = run(engine, *requests)
    shared = len(chunks)
    chunks.clear()
    one_by_one = run(engine, *requests, interleaved=True)
    assert shared < 0.75 * len(chunks)
    for one, other in zip(together, one_by_one, strict=True):
        assert np.array_equal(one.events, other.events)


@pytest.mark.parametrize("interleaved", [False, True])
def test_takes_of_one_prompt_read_it_once(interleaved, monkeypatch):
    """Each draws what it draws alone, with settings of its own. A prompt is also kept for later, until another one is read."""
    engine, staged = engine_of(3, CAPACITY, **FLAT), []
    stage = engine.stage

    def counted(events: np.ndarray, *others, **place) -> None:
        staged.append(len(events))
        stage(events, *others, **place)

    monkeypatch.setattr(engine, "stage", counted)
    start, other, long = prompt(4, 1), prompt(3, 2), prompt(20, 4)
    settings = [(start, WILD), (start, SamplingConfig(top_k=5)), (start, WILD), (start, WILD), (other, WILD)]
    settings += [(other, SamplingConfig(top_p=0.7)), (long, WILD), (start, WILD), (other, WILD)]
    requests = [Request(events, ENDLESS, sampling, 12, 7, number) for number, (events, sampling) in enumerate(settings)]
    takes = run(engine, *requests, interleaved=interleaved)
    window = Progress(requests[6], TOKENIZER, Scheduler(engine).window_length).window.given
    assert staged == [len(start), len(other), len(window), len(start), len(other)]
    for take, request in zip(takes, requests, strict=True):
        assert np.array_equal(take.events, run(engine_of(**FLAT), request)[0].events)
    assert len({take.events.tobytes() for take in takes}) == len(takes)


def test_a_long_prompt_and_a_short_one_in_a_small_context():
    """One is read whole at once, the other by a chunk, which as such does not fit after the first."""
    requests = [Request(prompt(20, 4), ENDLESS, WILD, 20, 1), Request(prompt(6, 5), ENDLESS, WILD, 20, 2)]
    for order in (requests, requests[::-1]):
        crowd, alone = engine_of(3, **FLAT), engine_of(1, **FLAT)
        crowd.stage_chunk = alone.stage_chunk = 64
        for take, request in zip(run(crowd, *order), order, strict=True):
            assert np.array_equal(take.events, run(alone, request)[0].events)


def test_sessions_with_one_prompt_read_it_once(monkeypatch):
    engine, staged = engine_of(3, CAPACITY, **FLAT), []
    stage = engine.stage
    monkeypatch.setattr(engine, "stage", lambda *window, **place: (staged.append(window), stage(*window, **place))[1])
    scheduler = Scheduler(engine, interleaved=True)
    requests = [Request(prompt(4, 1), ENDLESS, WILD, 10, seed) for seed in range(3)]
    rows = [scheduler.open(request) for request in requests]
    while scheduler.busy:
        scheduler.turn(max_steps=1)
    assert len(staged) == 1
    for row, request in zip(rows, requests, strict=True):
        assert np.array_equal([*row.outbox], run(engine_of(**FLAT), request)[0].events)


def test_outbox_has_the_events_of_the_continuation():
    request = Request(prompt(3), ENDLESS, WILD, 130, 4)
    scheduler = Scheduler(engine_of(1, **FLAT), interleaved=True)
    row, found = scheduler.submit(request), []
    while scheduler.busy:
        found += scheduler.turn(max_steps=1)
    assert np.array_equal(np.stack(row.outbox), found[0].events)
    assert scheduler.totals.events == 130 and scheduler.totals.row_steps >= 130


def random_session(scheduler: Scheduler, rng: np.random.Generator) -> None:
    with Session(scheduler, seed=int(rng.integers(99))) as session:
        for _ in range(6):
            bar, tick = session.clock.state.bar, session.tick
            bounds = [dict(until=bar + 20), dict(until_tick=tick + 500, not_before=tick + 200)][rng.integers(2)]
            next(session.draw(**bounds), None)
            list(session.draw(until=session.clock.state.bar + 20))
            session.push([(session.tick + 5 + number, 40, 60, 12, 70) for number in range(rng.integers(1, 30))])
            session.rollback(max(session.tick - int(rng.integers(30)), 0))


def test_warmup_draws_an_event_at_every_capacity(monkeypatch):
    """XLA prepares the products of a program when it first runs. A player would wait for that at the worst time."""
    engine, steps, decode = engine_of(3, 64, **FLAT), [], Engine.decode

    def counted(self: Engine, *given: int):
        shown = decode(self, *given)
        steps.append((self.capacity, int(shown[0, -1])))
        return shown

    monkeypatch.setattr(Engine, "decode", counted)
    engine.warmup()
    assert steps == [(capacity, 1) for capacity in engine.capacities] and len(steps) > 1
    assert engine.warmup() == 0 and len(steps) == len(engine.capacities)


def test_nothing_is_compiled_after_warmup():
    """Whatever the traffic: requests of any length, windows, growth, and sessions. Not even by JAX itself."""
    engine = engine_of(3, 64, **FLAT)
    engine.warmup()
    programs, compiled = len(engine._programs), engine.compilations
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **fields: compilations.append(fields) if "backend_compile" in event else None
    )
    jax.jit(lambda x: x + len(compilations))(0)
    assert len(compilations) == 1  # the listener works
    compilations.clear()
    rng = np.random.default_rng(8)
    for interleaved in (False, True):
        requests = [random_request(rng, long=number == 2) for number in range(6)]
        at_random(Scheduler(engine, interleaved=interleaved), requests, rng)
        engine.reset()
    scheduler = Scheduler(engine, interleaved=True)
    for _ in range(2):
        random_session(scheduler, rng)
    assert engine.capacity == CAPACITY
    assert len(engine._programs) == programs and engine.compilations == compiled
    assert engine.warmup() == 0
    assert not compilations


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Request(prompt(1)[:0]), "request.events"),
        (lambda: Request(prompt(1), max_events=0), "request.max_events"),
        (lambda: Limits(first_bar=3, stop_bar=2), "stop_bar"),
        (lambda: Limits(first_tick=30, stop_tick=20), "stop_tick"),
        (lambda: Limits(programs=[129]), "programs"),
        (lambda: Limits(programs=[-1]), "programs"),
        (lambda: SamplingConfig(top_p=0), "sampling.top_p"),
    ],
)
def test_invalid_requests_are_rejected_by_field(make, field):
    with pytest.raises(UserError, match=field):
        make()


def test_prompt_longer_than_the_context_is_read_from_its_last_bars():
    start = prompt(50, 3)
    assert len(start) > 2 * CONTEXT
    (take,) = run(engine_of(1, **FLAT), Request(start, Limits(first_bar=50, stop_bar=52, allow_eos=False), WILD, 60))
    piece = TOKENIZER.decode(np.concatenate([start, take.events]))
    bars = piece.bars.locate(piece.notes["onset"])[0][len(TOKENIZER.decode(start).notes) :]
    assert take.finished and set(bars.tolist()) <= {50, 51}
