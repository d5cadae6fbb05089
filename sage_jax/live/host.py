"""LiveHost: one engine whose rows are live sessions, and the thread that owns JAX."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage_jax.decoding.scheduler import Scheduler
from sage_jax.errors import UserError
from sage_jax.live.clock import MusicalClock
from sage_jax.live.modes import NEVER
from sage_jax.live.seat import Seat
from sage_jax.live.session import LiveSession
from sage_jax.live.settings import LiveSettings
from sage_jax.tokenizers.incremental import event_encoder

if TYPE_CHECKING:
    from sage_jax.api import Model

WINDOW_FRACTION = 0.4  # of the context with which a full row goes on: less to read at once than elsewhere
AT_ONCE = -NEVER
SHORTEST_WAIT, LONGEST_WAIT = 0.001, 1.0  # seconds between two rounds if there was nothing to do in the first one
JOINS = 0.5  # the part of its patience after which a session is read with others
MOST_COMMANDS = 64  # of a player in one round
OPEN_TIMEOUT = 60.0  # seconds


class LiveHost:
    """Sessions of one model that are stepped together. Players' notes and polls come from any thread.

    In each round the model reads what the players of some sessions did, for all of these together. Every other session draws an
    event if it wants one, all in one event step. clock: seconds; monotonic. closes_when_empty: with its last session.
    """

    def __init__(
        self,
        model: "Model",
        sessions: int = 1,
        clock: Callable[[], float] = time.monotonic,
        *,
        closes_when_empty: bool = False,
    ):
        if sessions < 1:
            raise UserError(f"live.sessions is {sessions}; give at least 1")
        event_encoder(model.tokenizer)  # raises UserError for tokens that can't be read one event at a time
        self.model, self.now = model, clock
        self.grid = model.tokenizer.grid
        self.engine = model.live_engine(sessions).sibling()
        window = int(WINDOW_FRACTION * self.engine.limit)
        self.scheduler = Scheduler(self.engine, interleaved=True, window_length=window)
        self.sessions: list[LiveSession] = []
        self.error: Exception | None = None
        self._opening: list[LiveSession] = []
        self._condition = threading.Condition()
        self._is_woken, self._is_closed, self._closes_when_empty = False, False, closes_when_empty
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "LiveHost":
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def start(self) -> None:
        """Compiles every program, then starts the thread. Nothing is compiled while playing."""
        if self._thread is not None:
            return
        self.engine.warmup()
        self._thread = threading.Thread(target=self._run, name="live model", daemon=True)
        self._thread.start()

    def open(self, settings: LiveSettings | None = None, on_change: Callable[[], None] | None = None) -> LiveSession:
        """A new session, whose downbeat is now.

        on_change: called from the model thread whenever `poll` has something new; it must return at once. Raises UserError if
        all rows are taken, and for a tempo or meter that the vocabulary lacks.
        """
        settings = LiveSettings() if settings is None else settings
        settings.check(self.grid)
        clock = MusicalClock(self.now(), settings.qpm, settings.meter, self.grid.ticks_per_quarter)
        session = LiveSession(self, settings, clock, on_change)
        with self._condition:
            self._check_open()
            if sum(not each.is_closed for each in [*self.sessions, *self._opening]) >= self.engine.rows:
                raise UserError(f"all {self.engine.rows} live sessions are taken; close one, or start with more")
            self._opening.append(session)
        self.wake()
        if self._thread is not None:
            with self._condition:
                self._condition.wait_for(lambda: session.seat is not None or self.error is not None, OPEN_TIMEOUT)
                self._check_open()
        return session

    def _check_open(self) -> None:
        if self.error is not None:
            raise UserError(f"the live model has failed: {self.error}") from self.error
        if self._is_closed:
            raise UserError("the live host is closed; make a new one")

    def wake(self) -> None:
        """Says that a session has something in its inbox."""
        with self._condition:
            self._is_woken = True
            self._condition.notify_all()

    def close(self) -> None:
        """Closes every session and ends the thread."""
        for session in [*self.sessions, *self._opening]:
            session.close()
        with self._condition:
            self._is_closed = True
        self.wake()
        if self._thread is not None:
            self._thread.join()

    # The model thread

    def _run(self) -> None:
        try:
            while not (self._is_closed and not self.sessions):
                wake = self.round()
                with self._condition:
                    if wake > AT_ONCE:
                        timeout = min(wake - self.now(), LONGEST_WAIT)
                        self._condition.wait_for(lambda: self._is_woken, max(timeout, SHORTEST_WAIT))
                    self._is_woken = False
        except Exception as error:
            self.error = error
            for session in [*self.sessions, *self._opening]:
                self._fail(session, error)
            with self._condition:
                self._condition.notify_all()

    def round(self) -> float:
        """One piece of work for each session that has some; returns when there is more, in seconds, or AT_ONCE.

        The thread calls it; a test may do so instead of starting the host.
        """
        has_more = [self._guarded(session, self._take_inbox) for session in list(self.sessions)]
        self._admit()
        now = self.now()
        for session in list(self.sessions):
            self._work(session, lambda seat: seat.update(now))
        readers = self._readers(now)
        others = sorted((each for each in self.sessions if each not in readers), key=lambda each: seat_of(each).deadline(now))
        began = self.now()
        has_drawn = [self._work(session, lambda seat: seat.step(self.now())) for session in others]
        seconds = self.now() - began
        for session in itertools.compress(others, has_drawn):  # each waits for all
            session.meters.add("event", seconds)
        if readers:
            self._read(readers)
        if readers or any(has_more) or any(has_drawn):
            return AT_ONCE
        now = self.now()
        return min((seat_of(session).wake(now) for session in self.sessions), default=NEVER)

    def _readers(self, now: float) -> list[LiveSession]:
        """The sessions whose players are read in this round: those that should be, and then those that soon should be.

        Reading for several rows at once takes hardly longer than for one. More of them wait for the next round, so that those
        that draw wait less.
        """
        by_time = sorted(self.sessions, key=lambda each: seat_of(each).reads_at())
        if not by_time or seat_of(by_time[0]).reads_at() > now:
            return []
        return [each for each in by_time if seat_of(each).reads_at(JOINS) <= now][: self.engine.group]

    def _read(self, readers: list[LiveSession]) -> None:
        now, restarts = self.now(), self.scheduler.restarts
        for place, session in enumerate(readers):  # while the device still does the event step
            self._work(session, lambda seat: seat.give(now))
            if self.scheduler.restarts > restarts:  # it needed a new window: further sessions wait for the next round
                readers = readers[: place + 1]
                break
        self.scheduler.read_queues()
        self.engine.wait()
        seconds = self.now() - now
        for session in readers:
            self._work(session, lambda seat: seat.go_on(self.now(), seconds))
        self.scheduler.turn(max_steps=1)  # reads what a prefill leaves to event steps

    def _admit(self) -> None:
        while self._opening:
            session = self._opening[0]
            session.seat = self._seat(session)
            with self._condition:
                self.sessions.append(session)
                self._opening.pop(0)
                self._condition.notify_all()

    def _seat(self, session: LiveSession) -> Seat:
        return Seat(
            self.scheduler, session.settings, session.clock, session.queue, session.meters, self.model.sampling, self.now
        )

    def _guarded(self, session: LiveSession, work: Callable[[LiveSession], Any]) -> bool:
        """Does `work` for a session unless it has ended; an error ends this session and no other."""
        try:
            return session in self.sessions and bool(work(session))
        except Exception as error:
            self._fail(session, error)
            return False

    def _work(self, session: LiveSession, work: Callable[[Seat], Any]) -> bool:
        """Does `work` for the seat of a session, which learns if `poll` has something new."""
        before = session.queue.changes
        has_worked = self._guarded(session, lambda session: work(seat_of(session)))
        if session.queue.changes != before:
            session.notify()
        return has_worked

    def _fail(self, session: LiveSession, error: Exception) -> None:
        session.error = error
        session.queue.close(self.now())
        self._drop(session)
        session.notify()

    def _drop(self, session: LiveSession) -> None:
        session.is_closed = True
        if session in self.sessions:
            self.sessions.remove(session)
            if session.seat is not None:
                session.seat.close()
            self._is_closed |= self._closes_when_empty and not self.sessions

    def _take_inbox(self, session: LiveSession) -> bool:
        """Does what the session's player wants, up to a bound for each round; returns whether there is more."""
        for _ in range(MOST_COMMANDS):
            if not session.inbox or session not in self.sessions:
                return False
            name, *arguments = session.inbox.popleft()
            if name == "close":
                self._drop(session)
            elif name == "restart":
                self._restart(session, *arguments)
            elif session.seat is not None:
                session.seat.take(name, arguments, self.now())
        return bool(session.inbox)

    def _restart(self, session: LiveSession, at: float) -> None:
        if session.seat is not None:
            session.seat.close()
        session.queue.end_all(self.now())
        settings = session.settings
        session.clock = MusicalClock(at, settings.qpm, settings.meter, self.grid.ticks_per_quarter)
        session.queue.restart(session.clock)
        session.seat = self._seat(session)
        session.notify()


def seat_of(session: LiveSession) -> Seat:
    """The seat of a session that is open."""
    assert session.seat is not None
    return session.seat
