"""NoteQueue: the model's notes of one session, from the plans that they come in to the messages that sound."""

import bisect
import collections
import dataclasses
import itertools
import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sage_jax.growing_array import GrowingArray
from sage_jax.live.clock import MusicalClock
from sage_jax.music.notes import NOTE

SKIPPED_AFTER = 0.1  # seconds of lateness after which a note-on is dropped
TOLERANCE = 0.002  # seconds that do not count as late: those that it takes to wake up
SHORTEST, LONGEST = 0.02, 16.0  # seconds that a note sounds
EARLIEST = -(10**9)  # a tick before all others
KEPT_TICKS = 1000  # for which the queue remembers which plan covered them
RECENT, RECENT_MISSES = 20_000, 32  # notes of which the lateness is kept, and whether there was any


@dataclasses.dataclass(frozen=True)
class Message:
    """A note-on or note-off of the model.

    note: its id; the note-off has that of its note-on. due: seconds of the host's clock. program: 128 for drums. velocity: 0
    for a note-off.
    """

    is_on: bool
    note: int
    due: float
    tick: int
    program: int
    pitch: int
    velocity: int


class PlannedNote(NamedTuple):
    """A note of a plan, in ticks."""

    tick: int
    program: int
    pitch: int
    duration: int
    velocity: int


class _Pending(NamedTuple):
    tick: int
    order: int
    version: int
    note: PlannedNote


@dataclasses.dataclass
class _Sounding:
    """A note-on that was given out. end: its last tick. until: seconds at which it ends at the earliest, and at the latest."""

    message: Message
    end: int
    until: tuple[float, float]

    def due(self, clock: MusicalClock) -> float:
        return min(max(clock.seconds(self.end), self.until[0]), self.until[1])


class Outcome(NamedTuple):
    """What became of planned notes. dropped: those that do not sound: too late, or overtaken by what sounds already."""

    given: list[PlannedNote]
    dropped: list[PlannedNote]


class NoteQueue:
    """What the model plays, and when: plans go in, messages come out once, in order of time. Every method is for any thread.

    A plan says which notes there are from one tick to another. A fresher plan replaces what older ones had in its range; what
    it does not cover yet stays, as a backup. What was given out is final: a fresher plan changes nothing at the ticks of it.
    Every note-on that is given out has exactly one note-off, at most LONGEST seconds later.
    """

    def __init__(self, clock: MusicalClock):
        self.clock = clock
        self._lock = threading.RLock()
        self._ids, self._orders = itertools.count(), itertools.count()
        self._pending: list[_Pending] = []
        self._covered: list[tuple[int, int, int]] = []  # start, stop, version
        self._frontier = EARLIEST  # every tick before it has been polled
        self._sounding: dict[tuple[int, int], _Sounding] = {}
        self._last_on: dict[tuple[int, int], float] = {}
        self._last_off: dict[tuple[int, int], float] = {}
        self._outcome = Outcome([], [])
        self._is_closed = False
        self._played = GrowingArray(NOTE)  # a session may last for hours
        self.sounded, self.late, self.skipped, self.changes = 0, 0, 0, 0
        self.lateness: collections.deque[float] = collections.deque(maxlen=RECENT)
        self.misses: collections.deque[bool] = collections.deque(maxlen=RECENT_MISSES)  # of the last notes: late or skipped

    # Plans

    def put(self, start: int, stop: int, notes: Iterable[PlannedNote], version: int) -> None:
        """Notes that begin in the ticks [start, stop) by the plan `version`; a fresher plan has a higher number.

        A plan may come in parts, also for one tick. Raises ValueError for a note outside.
        """
        with self._lock:
            if self._is_closed:
                return
            self.changes += 1
            older = [each for each in self._covered if each[2] < version]
            fresher = [each for each in self._covered if each[2] > version]
            is_final = lambda tick: tick < self._frontier and _contains(older, tick)
            self._pending = [
                each
                for each in self._pending
                if not start <= each.tick < stop or each.version >= version or is_final(each.tick)
            ]
            for note in notes:
                if not start <= note.tick < stop:
                    raise ValueError(f"a note at tick {note.tick} is outside of its plan, ticks {start} to {stop}")
                if is_final(note.tick) or _contains(fresher, note.tick):
                    self._outcome.dropped.append(note)
                else:
                    bisect.insort(self._pending, _Pending(note.tick, next(self._orders), version, note))
            self._cover(start, stop, version)

    def _cover(self, start: int, stop: int, version: int) -> None:
        oldest = self._frontier - KEPT_TICKS
        self._covered = [each for each in self._covered if each[1] > oldest]
        if self._covered and self._covered[-1][2] == version and start <= self._covered[-1][1]:
            first, last, _ = self._covered.pop()
            start, stop = min(first, start), max(last, stop)
        if stop > start:
            self._covered.append((start, stop, version))

    def withdraw(self, start: int | None = None) -> None:
        """Takes back what was planned from the tick `start` on, or everything; what was given out sounds to its end."""
        with self._lock:
            self.changes += 1
            low = EARLIEST if start is None else start
            self._pending = [each for each in self._pending if each.tick < low]
            low = max(low, self._frontier)
            self._covered = [(first, min(last, low), version) for first, last, version in self._covered if first < low]

    def outcome(self) -> Outcome:
        """What was given out and what was dropped since the last call."""
        with self._lock:
            outcome, self._outcome = self._outcome, Outcome([], [])
            return outcome

    # Messages

    def poll(self, until: float, now: float) -> list[Message]:
        """The messages due before `until` that were not given out before, by due time. They are final.

        now: the time at which they are given out, for their lateness.
        """
        with self._lock:
            messages: list[Message] = []
            self._frontier = max(self._frontier, self.clock.tick_from(until))
            count = 0
            for each in self._pending:
                due = self.clock.seconds(each.tick)
                if due >= until:
                    break
                count += 1
                self._give(each.note, due, now, messages)
            del self._pending[:count]
            for key, sounding in list(self._sounding.items()):
                due = sounding.due(self.clock)
                if due < until or self._is_closed:
                    self._end(key, due, messages)
            return sorted(messages, key=lambda message: (message.due, message.is_on, message.note))

    def _give(self, note: PlannedNote, due: float, now: float, messages: list[Message]) -> None:
        key, lateness = (note.program, note.pitch), max(now - due, 0.0)
        is_overtaken = self._last_on.get(key, -1e18) >= due or self._last_off.get(key, -1e18) > due
        self.misses.append(lateness > TOLERANCE)
        if lateness > SKIPPED_AFTER or is_overtaken:
            self.skipped += lateness > SKIPPED_AFTER
            self._outcome.dropped.append(note)
            return
        if key in self._sounding:  # struck again
            self._end(key, min(self._sounding[key].due(self.clock), due), messages)
        message = Message(True, next(self._ids), due, note.tick, note.program, note.pitch, note.velocity)
        messages.append(message)
        self._sounding[key] = _Sounding(message, note.tick + note.duration, (max(due, now) + SHORTEST, due + LONGEST))
        self._last_on[key] = due
        self._outcome.given.append(note)
        self._played.append((*note, 0))
        self.sounded += 1
        self.late += lateness > TOLERANCE
        self.lateness.append(lateness)

    def _end(self, key: tuple[int, int], due: float, messages: list[Message]) -> None:
        message = self._sounding.pop(key).message
        self._last_off[key] = due
        messages.append(dataclasses.replace(message, is_on=False, due=due, tick=self.clock.nearest(due), velocity=0))

    def played(self) -> np.ndarray:
        """All notes that were given out, NOTE [N]. Those from before the downbeat have onsets below 0."""
        with self._lock:
            return self._played.rows.copy()

    def planned(self, until: float) -> list[Message]:
        """What `poll` would give out up to `until` as things are, by due time. It is not final; ids are negative."""
        with self._lock:
            found = []
            for each in self._pending:
                due, note = self.clock.seconds(each.tick), each.note
                if due >= until:
                    break
                on = Message(True, -1 - each.order, due, each.tick, note.program, note.pitch, note.velocity)
                end = each.tick + note.duration
                off = dataclasses.replace(on, is_on=False, due=self.clock.seconds(end), tick=end, velocity=0)
                found += [on, off]
            return sorted(found, key=lambda message: message.due)

    def next_due(self) -> float | None:
        """When the next message is due; None if nothing is planned and nothing sounds."""
        with self._lock:
            dues = [sounding.due(self.clock) for sounding in self._sounding.values()]
            if self._pending:
                dues.append(self.clock.seconds(self._pending[0].tick))
            return min(dues, default=None)

    def end_all(self, at: float) -> None:
        """Takes back every plan, and ends what sounds at the time `at`."""
        with self._lock:
            self.withdraw()
            for sounding in self._sounding.values():
                end = max(at, sounding.message.due)
                sounding.until = (end, end)

    def close(self, at: float) -> None:
        """As `end_all`; the next poll has all that is left, and later plans are ignored."""
        with self._lock:
            self.end_all(at)
            self._is_closed = True

    def restart(self, clock: MusicalClock) -> None:
        """Goes on with another clock, for a new piece. What sounds must have been ended."""
        with self._lock:
            self.clock, self._frontier, self._covered, self._outcome = clock, EARLIEST, [], Outcome([], [])
            self._played = GrowingArray(NOTE)

    @property
    def is_silent(self) -> bool:
        """Whether nothing sounds and nothing is planned."""
        with self._lock:
            return not self._sounding and not self._pending


def _contains(intervals: list[tuple[int, int, int]], tick: int) -> bool:
    return any(start <= tick < stop for start, stop, _ in intervals)
