"""A host without a model, for tests of what is around it: it answers every note by its fifth, a quarter later."""

import dataclasses
import itertools
import threading
import time

from sage_jax.errors import UserError
from sage_jax.live.clock import Position
from sage_jax.live.queue import Message
from sage_jax.live.settings import LiveSettings
from sage_jax.music.notes import Piece

TICKS = 12
ABOUT = {
    "model": "stand-in",
    "meters": [[4, 4], [3, 4], [6, 8]],
    "ticks_per_quarter": TICKS,
    "sampling": {"temperature": 1.0, "top_p": 0.98, "min_p": 0.0},
}


@dataclasses.dataclass
class Statistics:
    notes: int = 0
    player_notes: int = 0

    def to_dict(self) -> dict:
        return {**dataclasses.asdict(self), "late": 0, "skipped": 0, "lateness_p50": 0.4, "lateness_p95": 2.1, "advice": ""}


class StandInHost:
    def __init__(self, sessions: int = 1):
        self.sessions, self.opened, self.closed = sessions, [], 0

    def now(self) -> float:
        return time.monotonic()

    def open(self, settings: LiveSettings | None = None, on_change=None) -> "StandInSession":
        if len(self.opened) - self.closed >= self.sessions:
            raise UserError(f"all {self.sessions} places are taken; try again later")
        self.opened.append(StandInSession(self, settings or LiveSettings(), on_change or (lambda: None)))
        return self.opened[-1]

    def close(self) -> None:
        for session in self.opened:
            session.close()


class StandInSession:
    """Also records every call, in `calls`."""

    def __init__(self, host, settings, on_change):
        self.host, self.settings, self.on_change = host, settings, on_change
        self.started, self.turn, self.is_open = host.now(), "player", True
        self.calls, self.notes, self._held, self._queue = [], [], {}, []
        self._ids, self._lock, self._statistics = itertools.count(1), threading.Lock(), Statistics()

    def note_on(self, pitch, velocity, *, program=None, at=None):
        self.calls.append(("on", pitch, velocity, program, at))
        self._statistics.player_notes += 1
        now = self.host.now() if at is None else at
        self._held[pitch] = (next(self._ids), now, velocity, self.settings.player_program if program is None else program)
        self._put(True, pitch, velocity, now)

    def note_off(self, pitch, *, program=None, at=None):
        self.calls.append(("off", pitch, program, at))
        if pitch in self._held:
            now = self.host.now() if at is None else at
            self._put(False, pitch, 0, now)
            _, began, velocity, program = self._held.pop(pitch)
            self.notes.append((self._tick(began), program, pitch, max(self._tick(now) - self._tick(began), 1), velocity))

    def take_over(self):
        self.calls.append(("take_over",))

    def panic(self):
        self.calls.append(("panic",))
        with self._lock:
            self._queue.clear()

    def change(self, **fields):
        self.calls.append(("change", fields))
        if not 4 <= fields.get("qpm", 120) <= 1000:
            raise UserError(f"live.qpm is {fields['qpm']}; give quarters per minute from 4 to 1000")
        self.settings = dataclasses.replace(self.settings, **fields)

    def poll(self, until):
        with self._lock:
            given = sorted((message for message in self._queue if message.due < until), key=lambda message: message.due)
            self._queue = [message for message in self._queue if message.due >= until]
        self._statistics.notes += sum(message.is_on for message in given)
        return given

    def plan(self, until):
        with self._lock:
            return sorted((message for message in self._queue if message.due < until), key=lambda message: message.due)

    def next_due(self):
        with self._lock:
            return min((message.due for message in self._queue), default=None)

    def position(self, at):
        tick, bar = self._tick(at), TICKS * 4 * self.settings.meter[0] // self.settings.meter[1]
        exact = (at - self.started) * self.settings.qpm / 60 * TICKS
        return Position(at, exact, self.settings.qpm, tick // bar, tick // bar * bar, self.settings.meter)

    def statistics(self):
        return self._statistics

    def piece(self):
        return Piece.from_notes(self.notes, TICKS, self.settings.qpm, self.settings.meter)

    def close(self):
        if self.is_open:
            self.is_open = False
            self.host.closed += 1

    def _tick(self, at):
        return max(int((at - self.started) * self.settings.qpm / 60 * TICKS), 0)

    def _put(self, is_on, pitch, velocity, now):
        number, quarter = self._held[pitch][0], 60 / self.settings.qpm
        with self._lock:
            for delay, interval in ((1, 7), (2, 12)):
                due = now + delay * quarter
                pitch_of = min(pitch + interval, 127)
                self._queue.append(Message(is_on, 2 * number + delay, due, self._tick(due), 0, pitch_of, velocity))
        self.on_change()
