"""MusicalClock: ticks, bars and meters of one live session on a monotonic clock."""

import bisect
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, METER, TEMPO, Piece, bar_ticks


class Tempo(NamedTuple):
    """From `tick` on, which is at `seconds`, a tick lasts `tick_seconds`."""

    tick: int
    seconds: float
    tick_seconds: float
    qpm: float


class Meter(NamedTuple):
    """From `tick` on, where the bar number `bar` begins, bars have `ticks` ticks."""

    tick: int
    bar: int
    ticks: int
    meter: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in musical time.

    at: seconds. tick: with a fraction. qpm: the tempo there. bar: its number, from 0. bar_tick: the tick of its first beat.
    """

    at: float
    tick: float
    qpm: float
    bar: int
    bar_tick: int
    meter: tuple[int, int]


class MusicalClock:
    """Maps whole ticks to seconds of a monotonic clock and back, through changes of tempo and meter.

    Tick 0 is at `started` seconds. `tick(seconds(t)) == t` for every tick. Readers need no lock: a change replaces a tuple.
    """

    def __init__(
        self,
        started: float,
        qpm: float = DEFAULT_QPM,
        meter: tuple[int, int] = DEFAULT_METER,
        ticks_per_quarter: int = 12,
    ):
        self.ticks_per_quarter = ticks_per_quarter
        self._tempos = (self._tempo(0, started, qpm),)
        self._meters = (Meter(0, 0, int(bar_ticks(*meter, ticks_per_quarter)), meter),)

    @property
    def started(self) -> float:
        """The seconds of tick 0."""
        return self._tempos[0].seconds

    @property
    def qpm(self) -> float:
        """The last tempo, in quarters per minute."""
        return self._tempos[-1].qpm

    @property
    def meter(self) -> tuple[int, int]:
        """The last meter."""
        return self._meters[-1].meter

    @property
    def quarter_seconds(self) -> float:
        """The length of a quarter in the last tempo."""
        return 60.0 / self.qpm

    def _tempo(self, tick: int, seconds: float, qpm: float) -> Tempo:
        return Tempo(tick, seconds, 60.0 / (qpm * self.ticks_per_quarter), qpm)

    # Ticks and seconds

    def seconds(self, tick: float) -> float:
        """When `tick` is. Ticks before 0 are as long as those of the first tempo."""
        tempos = self._tempos
        tempo = tempos[max(bisect.bisect_right(tempos, tick, key=lambda each: each.tick) - 1, 0)]
        return tempo.seconds + (tick - tempo.tick) * tempo.tick_seconds

    def position(self, seconds: float) -> float:
        """The place at a time, in ticks with a fraction."""
        tempo = self._tempo_at(seconds)
        return tempo.tick + (seconds - tempo.seconds) / tempo.tick_seconds

    def _tempo_at(self, seconds: float) -> Tempo:
        tempos = self._tempos
        return tempos[max(bisect.bisect_right(tempos, seconds, key=lambda each: each.seconds) - 1, 0)]

    def nearest(self, seconds: float) -> int:
        """The tick that is nearest to a time."""
        return math.floor(self.position(seconds) + 0.5)

    def tick(self, seconds: float) -> int:
        """The last tick that is not after a time."""
        tick = math.floor(self.position(seconds))
        while self.seconds(tick + 1) <= seconds:  # the division may round across a whole number
            tick += 1
        while self.seconds(tick) > seconds:
            tick -= 1
        return tick

    def tick_from(self, seconds: float) -> int:
        """The first tick that is not before a time."""
        tick = self.tick(seconds)
        return tick if self.seconds(tick) >= seconds else tick + 1

    def change_tempo(self, at: float, qpm: float) -> int:
        """Sets the tempo from the first tick at or after `at` seconds; returns the tick. Changes after `at` are undone."""
        kept = [tempo for tempo in self._tempos if tempo.seconds <= at] or [self._tempos[0]]
        tick = max(self.tick_from(at), kept[-1].tick)
        change = self._tempo(tick, self.seconds(tick), qpm)
        if kept[-1].tick == tick:
            change = change._replace(seconds=kept[-1].seconds)
            kept.pop()
        self._tempos = (*kept, change)
        return tick

    # Bars

    def _meter_at(self, tick: int) -> Meter:
        meters = self._meters
        return meters[max(bisect.bisect_right(meters, tick, key=lambda each: each.tick) - 1, 0)]

    def bar_of(self, tick: int) -> int:
        """The number of the bar of `tick`, from 0; less than 0 before tick 0."""
        meter = self._meter_at(tick)
        return meter.bar + (tick - meter.tick) // meter.ticks

    def bar_start(self, bar: int) -> int:
        """The tick at which a bar begins."""
        meters = self._meters
        meter = meters[max(bisect.bisect_right(meters, bar, key=lambda each: each.bar) - 1, 0)]
        return meter.tick + (bar - meter.bar) * meter.ticks

    def place(self, at: float) -> Position:
        """Where the music is at `at` seconds."""
        tick, last = self.position(at), self.tick(at)
        bar = self.bar_of(last)
        return Position(at, tick, self._tempo_at(at).qpm, bar, self.bar_start(bar), self._meter_at(last).meter)

    def change_meter(self, at: float, meter: tuple[int, int]) -> int:
        """Sets the meter from the first bar line at or after `at` seconds; returns its tick."""
        tick = max(self.tick_from(at), 0)
        bar = self.bar_of(tick)
        if self.bar_start(bar) < tick:
            bar += 1
        tick = self.bar_start(bar)
        kept = tuple(each for each in self._meters if each.tick < tick)
        self._meters = (*kept, Meter(tick, bar, int(bar_ticks(*meter, self.ticks_per_quarter)), meter))
        return tick

    def piece(self, notes: np.ndarray) -> Piece:
        """A piece of `notes` with the tempos and meters of this clock."""
        tempos = [(tempo.tick, tempo.qpm) for tempo in self._tempos]
        meters = [(each.tick, *each.meter) for each in self._meters]
        return Piece.from_changes(notes, np.array(tempos, TEMPO), np.array(meters, METER), self.ticks_per_quarter)
