"""What tests of live play share: a host on a clock that a test turns by hand, over a tiny model or one that makes notes up."""

import itertools
import types
from collections.abc import Callable, Iterator

import numpy as np

from sage_jax.decoding.engine import GROUPS
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.live import seat
from sage_jax.live.host import AT_ONCE, LiveHost
from sage_jax.live.queue import Message
from sage_jax.live.session import LiveSession
from sage_jax.live.settings import LiveSettings
from sage_jax.tokenizers.incremental import DecodedEvent, TimedNote
from tests.decoding.small import FLAT, TOKENIZER, engine_of
from tests.live.test_queue import check

BEGAN = 100.0  # when the clock of a stage begins


def model_of(engine=None):
    """What a host needs of a model; engine: instead of one of a tiny model."""
    make, tokenizer = lambda rows: engine or engine_of(rows, **FLAT), engine.tokenizer if engine else TOKENIZER
    return types.SimpleNamespace(tokenizer=tokenizer, sampling=SamplingConfig(), live_engine=make)


class FakeTime:
    """Seconds that pass when a test says so. watch: called every ten milliseconds, as from another thread."""

    def __init__(self, watch: Callable[[], None] = lambda: None):
        self.now, self.watch = BEGAN, watch

    def __call__(self) -> float:
        return self.now

    def advance(self, until: float) -> None:
        while self.now < until:
            self.now = min(self.now + 0.01, until)
            self.watch()


class MadeUp:
    """In the place of a decoding session: makes notes up, and takes the seconds that `latency` gives for each.

    It checks that notes come in order of time, and refuses to go back by more than `memory` notes. Nothing can come before a
    change of the tempo or the meter that it has read.
    """

    def __init__(self, time: FakeTime, latency: Callable[[], float], memory: int = 10**6):
        self.time, self.latency, self.memory = time, latency, memory
        self.notes: list[tuple[int, ...]] = []
        self.tempos: list[tuple[int, float]] = []
        self.meters: list[tuple[int, tuple[int, int]]] = []
        self.rest = self.version = self.most = 0
        self.is_closed = False

    @property
    def tick(self) -> int:
        return max([self.rest, *(note[0] for note in self.notes[-1:]), *(tick for tick, _ in self.tempos + self.meters)])

    def replace(self, start, notes, tempos=(), meters=()) -> None:
        kept = [note for note in self.notes if note[0] < start]
        if len(kept) < min(self.most - self.memory, len(self.notes)):
            raise UserError(f"start is {start}, before the window")
        self.version += 1
        rows = [tuple(note) for note in notes]
        assert rows == sorted(rows) and all(row[0] >= start for row in rows)
        assert len({row[:3] for row in rows}) == len(rows)
        self.notes, self.rest = kept + rows, 0
        assert all(tick >= start for tick, _ in [*tempos, *meters])
        self.tempos = [change for change in self.tempos if change[0] < start] + list(tempos)
        self.meters = [change for change in self.meters if change[0] < start] + list(meters)
        self.most = max(self.most, len(self.notes))
        self.time.advance(self.time.now + self.latency())

    def rollback(self, to: int) -> None:
        self.replace(to, [])

    def draw(self, *, until_tick, not_before, begin_before, programs, number) -> Iterator[DecodedEvent]:
        assert until_tick > max(self.tick, not_before)
        version = self.version = self.version + 1
        for attempt in itertools.count():
            assert version == self.version, "the session has changed since this draw began"
            rng = np.random.default_rng([len(self.notes), number, self.rest, attempt])
            self.time.advance(self.time.now + self.latency())
            must_begin = begin_before is not None and self.tick < not_before
            tick = max(self.tick, not_before) + int(rng.choice([0, 0, 1, 3, 6]))
            tick = min(tick, begin_before - 1) if must_begin else tick
            if tick >= until_tick:
                return
            kind = "note" if must_begin else rng.choice(["note"] * 8 + ["rest"])
            row = (tick, int(rng.choice(programs)), int(rng.integers(30, 90)), int(rng.integers(1, 24)), 80)
            if kind == "rest":
                self.rest = tick
                yield DecodedEvent("rest", tick, 0.0, 0)
            elif not self.notes or row[:3] > self.notes[-1][:3]:
                self.notes.append(row)
                self.most = max(self.most, len(self.notes))
                yield DecodedEvent("note", tick, 0.0, 0, TimedNote(*row, track=0, start=0.0, end=0.0))

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class MadeUpEngine:
    """In the place of an engine, for sessions that are MadeUp."""

    def __init__(self, rows: int):
        self.rows, self.tokenizer, self.limit, self.chunk, self.stage_chunk = rows, TOKENIZER, 1024, 16, 64
        self.group = min(rows, GROUPS[-1])

    def wait(self) -> None:
        pass

    def sibling(self) -> "MadeUpEngine":
        return self


class Stage:
    """A host without a thread, its sessions, and all that they played.

    latency: seconds of each piece of the model's work; None for a tiny model, of which each round takes a millisecond.
    lookahead: of the polls. engine: of another tiny model.
    """

    def __init__(
        self, monkeypatch=None, sessions: int = 1, latency=None, lookahead: float = 0.02, memory: int = 10**6, engine=None
    ):
        self.time, self.lookahead, self.is_made_up = FakeTime(self.poll), lookahead, latency is not None
        if latency is not None:
            engine = MadeUpEngine(sessions)
            monkeypatch.setattr(seat, "Session", lambda *args, **fields: MadeUp(self.time, latency, memory))
        self.host = LiveHost(model_of(engine), sessions, self.time)
        if latency is not None:
            self.host.scheduler.turn = lambda max_steps: []
        self.messages: dict[LiveSession, list[Message]] = {}

    def open(self, **settings) -> LiveSession:
        session = self.host.open(LiveSettings(**settings))
        self.messages[session] = []
        self.host.round()
        return session

    def run(self, until: float) -> None:
        """Works and polls until `until` seconds after the start."""
        until += BEGAN
        rounds = itertools.count()
        while self.time.now < until:
            assert next(rounds) < 50_000, "the host is busy with nothing"
            wake = self.host.round()
            self.check()
            if wake == AT_ONCE:
                self.time.advance(self.time.now + (0.0 if self.is_made_up else 0.001))
            else:
                self.time.advance(min(max(wake, self.time.now + 0.001), max(until, self.time.now)))

    def poll(self) -> None:
        for session, messages in self.messages.items():
            messages += session.poll(self.time.now + self.lookahead)

    def check(self) -> None:
        """The sessions have read what their contexts say, or know from where on they have not."""
        for session in self.messages:
            assert session.error is None, session.error
            context, decoding = session.seat.context, session.seat.decoding
            if not self.is_made_up or context.beyond:
                continue
            dirty = 10**9 if context.dirty is None else context.dirty
            for found, wanted in zip((decoding.tempos, decoding.meters), context.changes(0), strict=True):
                assert [change for change in found if change[0] < dirty] == [change for change in wanted if change[0] < dirty]
            assert [note[:3] for note in decoding.notes if note[0] < dirty] == [
                entry.note[:3] for entry in context.entries(0) if entry.note.tick < dirty
            ]

    def play(self, session: LiveSession, notes, quarter: float = 0.5) -> None:
        """Notes (quarters, pitch, length in quarters), each at its time; the host works in between."""
        events = sorted(
            itertools.chain(
                ((at * quarter, True, pitch) for at, pitch, _ in notes),
                (((at + length) * quarter - 0.01, False, pitch) for at, pitch, length in notes),
            )
        )
        for at, is_on, pitch in events:
            self.run(at)
            if is_on:
                session.note_on(pitch, 80, at=BEGAN + at)
            else:
                session.note_off(pitch, at=BEGAN + at)

    def close(self) -> None:
        """Closes the sessions, and checks that nothing is left sounding."""
        for session, messages in self.messages.items():
            session.close()
            messages += session.poll(self.time.now)
            check(messages)
            assert session.error is None and session.poll(1e9) == []
        self.host.round()
        assert not self.host.sessions and all(session.seat.decoding.is_closed for session in self.messages if self.is_made_up)
