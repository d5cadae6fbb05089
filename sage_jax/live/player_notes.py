"""PlayerNotes: a player's note-ons and note-offs as notes on the grid."""

import bisect
import collections
import dataclasses
import statistics

import numpy as np

from sage_jax.growing_array import GrowingArray
from sage_jax.live.clock import MusicalClock
from sage_jax.live.queue import PlannedNote
from sage_jax.tokenizers.grid import Grid

WATERMARK = 0.06  # seconds after a note at which those of its chord have come
CHORD = 0.03  # seconds between the first and the last note of a chord that is played as one
RECENT = 8  # notes whose lengths suggest that of a note which is still held


# A note as a row. at, off: seconds; off is NaN while it is held.
PLAYER_NOTE = np.dtype([("tick", "i4"), ("program", "i2"), ("pitch", "i2"), ("velocity", "i2"), ("at", "f8"), ("off", "f8")])


@dataclasses.dataclass(eq=False, slots=True)
class PlayerNote:
    """A note of the player that the model may not know yet.

    number: its row. at, off: seconds; off is None while it is held. written: the length in ticks that the model has, or 0.
    """

    number: int
    tick: int
    program: int
    pitch: int
    velocity: int
    at: float
    off: float | None = None
    written: int = 0


class PlayerNotes:
    """Quantizes what a player plays, and says which notes are new to the model or have another length than it has read.

    Notes are held back until WATERMARK after their time. A held note has a provisional length: a usual one that is not shorter
    than what has sounded. notes: all of them so far, as rows PLAYER_NOTE.
    """

    def __init__(self, clock: MusicalClock, grid: Grid):
        self.clock = clock
        self._lengths = grid.durations.tolist()
        self._usual = [grid.ticks_per_quarter * factor // 2 for factor in (1, 2, 4, 8, 16, 32, 64, 128)]
        self.notes = GrowingArray(PLAYER_NOTE)
        self._held: dict[tuple[int, int], PlayerNote] = {}
        self._waiting: list[PlayerNote] = []  # not written yet, or with another length than was written
        self._recent: collections.deque[int] = collections.deque(maxlen=RECENT)
        self._chord: tuple[float, int] | None = None  # seconds and tick of the first note of the last chord
        self._taken: collections.deque[tuple[int, int, int]] = collections.deque(maxlen=64)
        self.programs: set[int] = set()
        self.last_on: float | None = None
        self.last_activity: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether any key is down."""
        return bool(self._held)

    def on(self, pitch: int, velocity: int, program: int, at: float) -> PlayerNote:
        """A key goes down at `at` seconds. One that is down already is struck again."""
        self.off(pitch, program, at)
        tick = max(self.clock.nearest(at), 0)
        if self._chord is not None and 0 <= at - self._chord[0] <= CHORD:
            tick = self._chord[1]
        else:
            self._chord = at, tick
        while (tick, program, pitch) in self._taken:  # struck twice within a tick
            tick += 1
        note = PlayerNote(len(self.notes), tick, program, pitch, velocity, at)
        self._taken.append((tick, program, pitch))
        self.notes.append((tick, program, pitch, velocity, at, np.nan))
        self._held[program, pitch] = note
        self._waiting.append(note)
        self.programs.add(program)
        self.last_on = max(self.last_on or at, at)
        self.last_activity = max(self.last_activity or at, at)
        return note

    def off(self, pitch: int, program: int, at: float) -> None:
        """A key goes up. One that is not down is ignored."""
        note = self._held.pop((program, pitch), None)
        if note is None:
            return
        note.off = max(at, note.at)
        self.notes.rows["off"][note.number] = note.off
        self._recent.append(self.length(note, at))
        if note.written and note.written != self.length(note, at):
            self._waiting.append(note)
        self.last_activity = max(self.last_activity or at, at)

    def release_all(self, at: float) -> None:
        """All keys go up, as when the player vanishes."""
        for program, pitch in list(self._held):
            self.off(pitch, program, at)

    def length(self, note: PlayerNote, now: float) -> int:
        """The length of a note in ticks, of those in the vocabulary."""
        sounding = self.clock.position(now if note.off is None else note.off) - self.clock.position(note.at)
        if note.off is not None:
            return self._nearest(max(round(sounding), 1))
        typical = statistics.median_low(self._recent) if self._recent else 0
        usual = next((length for length in self._usual if length >= sounding), self._usual[-1])
        return self._nearest(max(usual, typical))

    def _nearest(self, length: int) -> int:
        place = bisect.bisect_left(self._lengths, length)
        near = self._lengths[max(place - 1, 0) : place + 1]
        return min(near, key=lambda each: (abs(each - length), each))

    def due(self) -> float | None:
        """When the first of the notes that wait may be written, or a held one outgrows its length; None without any."""
        dues = [note.at + WATERMARK for note in self._waiting]
        dues += [self._outgrown(note) for note in self._held.values() if 0 < note.written < self._lengths[-1]]
        return min(dues, default=None)

    def _outgrown(self, note: PlayerNote) -> float:
        """When a held note is longer than the length that was written."""
        return self.clock.seconds(self.clock.position(note.at) + note.written) + 1e-3

    def write(self, now: float, all_of_them: bool = False) -> list[PlannedNote]:
        """Takes the notes whose watermark has passed, or all, and those whose length has changed."""
        for note in self._held.values():  # held longer than was thought
            if 0 < note.written < self._lengths[-1] and self._outgrown(note) <= now and note not in self._waiting:
                self._waiting.append(note)
        ready: list[PlayerNote] = []
        waiting, self._waiting = self._waiting, []
        for note in waiting:
            (ready if all_of_them or note.at + WATERMARK <= now else self._waiting).append(note)
        written = []
        for note in ready:
            length = self.length(note, now)
            if length != note.written:
                note.written = length
                written.append(PlannedNote(note.tick, note.program, note.pitch, length, note.velocity))
        return written
