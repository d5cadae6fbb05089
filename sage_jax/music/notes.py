"""A piece of music: notes, a tempo map and time signatures on a tick grid."""

import dataclasses
import functools
from typing import Any

import numpy as np

from sage_jax.music.tracks import DRUMS, MOST_TRACKS, Track, complete_tracks, with_further_tracks

DEFAULT_QPM = 120.0
DEFAULT_METER = (4, 4)

# A track is the number of one of the program's tracks, from 0. It comes last, as rows without it are of track 0.
NOTE_FIELDS = ("onset", "program", "pitch", "duration", "velocity", "track")
NOTE = np.dtype([(field, "i4") for field in NOTE_FIELDS])
TEMPO = np.dtype([("tick", "i4"), ("qpm", "f8")])
METER = np.dtype([("tick", "i4"), ("numerator", "i4"), ("denominator", "i4")])


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Notes with a tempo map and time signatures. Onsets, durations and ticks share one grid and count from 0.

    notes: NOTE array in canonical order (onset, program, track, pitch, duration, velocity); program DRUMS for drums.
    tempos: TEMPO array in quarters per minute; the first entry is at tick 0.
    meters: METER array; the first entry is at tick 0. Each entry starts a bar and may cut the previous bar short (a pickup).
    ticks_per_quarter: resolution of the grid.
    tracks: all tracks, in the order of the file; those that have notes if none are given. Equal pieces may have other ones.
    Raises ValueError for arrays that break these rules.
    """

    notes: np.ndarray
    tempos: np.ndarray
    meters: np.ndarray
    ticks_per_quarter: int = 12
    tracks: tuple[Track, ...] = ()

    def __post_init__(self):
        if self.ticks_per_quarter < 1:
            raise ValueError(f"ticks_per_quarter is {self.ticks_per_quarter}; it must be at least 1")
        object.__setattr__(self, "notes", note_array(self.notes))
        for name, dtype in (("tempos", TEMPO), ("meters", METER)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        check_notes(self.notes)
        _check_changes("tempos", self.tempos)
        _check_changes("meters", self.meters)
        if not (self.tempos["qpm"] > 0).all():
            raise ValueError("a tempo must be above 0 quarters per minute")
        if (self.meters["numerator"] < 1).any() or (self.meters["denominator"] < 1).any():
            raise ValueError("a time signature needs a numerator and a denominator of at least 1")
        whole = 4 * self.ticks_per_quarter * self.meters["numerator"].astype(np.int64)
        if (whole % self.meters["denominator"]).any():
            raise ValueError(f"a bar is not a whole number of ticks at {self.ticks_per_quarter} ticks per quarter")
        object.__setattr__(self, "notes", canonical(self.notes))
        object.__setattr__(self, "tracks", complete_tracks(self.notes, self.tracks))

    @classmethod
    def from_notes(cls, notes, ticks_per_quarter: int = 12, qpm: float = DEFAULT_QPM, meter=DEFAULT_METER) -> "Piece":
        """A piece with one tempo and one time signature. notes: as for `note_array`."""
        return cls(note_array(notes), np.array([(0, qpm)], TEMPO), np.array([(0, *meter)], METER), ticks_per_quarter)

    @classmethod
    def from_changes(
        cls,
        notes: np.ndarray,
        tempos: np.ndarray,
        meters: np.ndarray,
        ticks_per_quarter: int,
        tracks: tuple[Track, ...] = (),
    ) -> "Piece":
        """A piece from tempo and meter changes in order of time.

        The defaults hold before the first change. Of several changes at one tick the last one holds.
        """
        tempos, meters = _complete_changes(tempos, (0, DEFAULT_QPM)), _complete_changes(meters, (0, *DEFAULT_METER))
        return cls(notes, tempos, meters, ticks_per_quarter, tracks)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Piece):
            return NotImplemented
        return self.ticks_per_quarter == other.ticks_per_quarter and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("notes", "tempos", "meters")
        )

    def __repr__(self) -> str:
        return f"Piece({len(self.notes)} notes, {len(self.tracks)} tracks, {self.num_bars} bars)"

    @property
    def end(self) -> int:
        """The tick at which the last note ends; 0 without notes."""
        return int((self.notes["onset"].astype(np.int64) + self.notes["duration"]).max()) if len(self.notes) else 0

    @functools.cached_property
    def bars(self) -> "BarGrid":
        return BarGrid.from_meters(self.meters, self.ticks_per_quarter)

    @property
    def num_bars(self) -> int:
        """Number of bars, including the bar in which the last note ends."""
        return self.bar_of(self.end - 1) + 1 if self.end else 0

    @property
    def first_bar(self) -> int:
        """The bar in which the first note begins. The piece must have a note."""
        return self.bar_of(int(self.notes["onset"][0]))

    def bar_start(self, bar: int) -> int:
        """The tick at which a bar begins. The bar may lie after the last note."""
        return self.bars.start_of(bar)

    def bar_of(self, tick: int) -> int:
        """The bar that contains a tick. The tick may lie after the last note."""
        return self.bars.bar_of(tick)

    def bar_lines(self, until: int | None = None) -> np.ndarray:
        """Start ticks of all bars that begin before `until` (default: the end of the last note)."""
        until = self.end if until is None else until
        if until <= 0:
            return np.zeros(0, np.int64)
        return self.bars.start(np.arange(self.bar_of(until - 1) + 1))

    def slice_bars(self, start: int, stop: int) -> "Piece":
        """The notes that begin in bars [start, stop), shifted to tick 0, with the tempos and meters in force there.

        Notes keep their duration, even past the last bar. Raises ValueError unless 0 <= start <= stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"bars {start} to {stop} are not a range")
        low, high = (int(tick) for tick in self.bars.start(np.array([start, stop])))
        onset = self.notes["onset"]
        notes = self.notes[(onset >= low) & (onset < high)].copy()
        notes["onset"] -= low
        tempos, meters = (_window(changes, low, high) for changes in (self.tempos, self.meters))
        return dataclasses.replace(self, notes=notes, tempos=tempos, meters=meters)

    def cut_at(self, tick: int) -> "Piece":
        """The notes and changes before `tick` > 0. Notes that sound longer end at `tick`."""
        notes = self.notes[self.notes["onset"] < tick].copy()
        notes["duration"] = np.minimum(notes["duration"], tick - notes["onset"])
        tempos, meters = (changes[changes["tick"] < tick] for changes in (self.tempos, self.meters))
        return dataclasses.replace(self, notes=notes, tempos=tempos, meters=meters)

    def with_notes(self, notes: np.ndarray) -> "Piece":
        """The piece with other notes, a NOTE array, and the tracks that they have beyond its own."""
        return dataclasses.replace(self, notes=notes, tracks=with_further_tracks(self.tracks, notes))

    def with_tracks_of(self, other: "Piece") -> "Piece":
        """The piece with the tracks of `other`, and then those that its own notes have beyond them."""
        return dataclasses.replace(self, tracks=with_further_tracks(other.tracks, self.notes))

    def transpose(self, semitones: int) -> "Piece":
        """The piece with all notes except drums moved by `semitones`. Raises ValueError if a pitch leaves 0..127."""
        notes = self.notes.copy()
        notes["pitch"][notes["program"] != DRUMS] += semitones
        return dataclasses.replace(self, notes=notes)

    def seconds(self, ticks) -> np.ndarray:
        """The times of `ticks` (any shape) in seconds, float64 of the same shape."""
        ticks = np.asarray(ticks, np.float64)
        starts = self.tempos["tick"].astype(np.float64)
        per_tick = 60.0 / (self.tempos["qpm"] * self.ticks_per_quarter)
        offsets = np.concatenate([[0.0], np.cumsum(np.diff(starts) * per_tick[:-1])])
        segment = np.searchsorted(starts, ticks, "right") - 1
        return offsets[segment] + (ticks - starts[segment]) * per_tick[segment]


@dataclasses.dataclass(frozen=True)
class BarGrid:
    """Bar lines, one row per time signature.

    starts: tick of the time signature. lengths: ticks per bar. first_bars: number of the first bar in this time signature.
    """

    starts: np.ndarray
    lengths: np.ndarray
    first_bars: np.ndarray

    @classmethod
    def from_meters(cls, meters: np.ndarray, ticks_per_quarter: int) -> "BarGrid":
        starts = meters["tick"].astype(np.int64)
        lengths = bar_ticks(meters["numerator"].astype(np.int64), meters["denominator"], ticks_per_quarter)
        bars = -(-np.diff(starts) // lengths[:-1])  # a bar cut short by the next meter counts as a bar
        return cls(starts, lengths, np.concatenate([[0], np.cumsum(bars)]))

    def locate(self, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(bar, ticks since the start of the bar, row of this grid) of each tick."""
        row = np.searchsorted(self.starts, ticks, "right") - 1
        since = ticks - self.starts[row]
        # numpy divides by a scalar several times faster than by an array.
        bar = since // (self.lengths[row] if len(self.lengths) > 1 else self.lengths[0])
        return self.first_bars[row] + bar, since - bar * self.lengths[row], row

    def start_of(self, bar: int) -> int:
        """The tick at which one bar begins."""
        return int(self.start(np.array([bar]))[0])

    def bar_of(self, tick: int) -> int:
        """The bar of one tick."""
        return int(self.locate(np.array([tick]))[0][0])

    def start(self, bars: np.ndarray) -> np.ndarray:
        """The tick at which each bar begins."""
        row = np.searchsorted(self.first_bars, bars, "right") - 1
        return self.starts[row] + (bars - self.first_bars[row]) * self.lengths[row]


def bar_ticks(numerator, denominator, ticks_per_quarter: int):
    """Ticks per bar, rounded down if the denominator does not divide them."""
    return 4 * ticks_per_quarter * numerator // denominator


def note_array(rows: Any) -> np.ndarray:
    """`rows` as a NOTE array [N].

    rows: an array or a record with fields of NOTE, or sequences (onset, program, pitch, duration, velocity), or one tuple of
    them. A sixth value is the track; without it the track is 0. Raises ValueError for rows of another length.
    """
    if isinstance(rows, np.ndarray | np.void) and rows.dtype.names:
        rows = np.atleast_1d(rows)
        if rows.dtype == NOTE:
            return rows
        notes = np.zeros(len(rows), NOTE)
        for field in rows.dtype.names:
            notes[field] = rows[field]
        return notes
    if isinstance(rows, tuple) and rows and np.ndim(rows[0]) == 0 and not isinstance(rows[0], np.void):
        rows = [rows]
    return np.array([(*row, 0) if len(row) == len(NOTE_FIELDS) - 1 else tuple(row) for row in rows], NOTE)


def canonical(notes: np.ndarray) -> np.ndarray:
    """`notes` sorted by onset, program, track, pitch, duration, velocity."""
    order = sort_keys(notes)
    step = np.diff(order)
    if step.min(initial=1) > 0:
        return notes
    index = np.argsort(order, kind="stable")  # the quickest kind for readers' notes, which are in ascending runs
    order, notes = order[index], notes.take(index)  # an index in brackets takes 20 times as long
    step = np.diff(order)
    is_tied = np.zeros(len(notes), bool)
    is_tied[1:] = step == 0
    is_tied[:-1] |= is_tied[1:]
    if is_tied.any():
        rows = np.flatnonzero(is_tied)
        among = notes.take(rows)
        notes[rows] = among.take(np.lexsort((among["velocity"], among["duration"], order[rows])))
    return notes


def sort_keys(notes: np.ndarray) -> np.ndarray:
    """One number per note, int64 [N], in the order of onset, program, track and pitch."""
    program = notes["onset"].astype(np.int64) * (DRUMS + 1) + notes["program"]
    return (program * MOST_TRACKS + notes["track"]) * 128 + notes["pitch"]


def _complete_changes(changes: np.ndarray, default: tuple) -> np.ndarray:
    """`changes` with `default` added unless one is at tick 0, and only the last of several changes at one tick."""
    if not len(changes) or changes["tick"][0] > 0:
        changes = np.concatenate([np.array([default], changes.dtype), changes])
    return changes[np.append(np.diff(changes["tick"]) > 0, True)]


def _window(changes: np.ndarray, low: int, high: int) -> np.ndarray:
    """The changes in force in [low, high), with ticks relative to `low`."""
    first = np.searchsorted(changes["tick"], low, "right") - 1
    last = max(first + 1, np.searchsorted(changes["tick"], high, "left"))
    window = changes[first:last].copy()
    window["tick"] = np.maximum(window["tick"] - low, 0)
    return window


def check_notes(notes: np.ndarray) -> None:
    """Raises ValueError unless every field of `notes`, a NOTE array, is in its range."""
    if not len(notes):
        return
    columns = np.ascontiguousarray(notes).view(np.int32).reshape(-1, len(NOTE_FIELDS)).T.copy()  # much quicker than by field
    lows: dict[str, int] = dict(zip(NOTE_FIELDS, columns.min(axis=1).tolist(), strict=True))
    highs: dict[str, int] = dict(zip(NOTE_FIELDS, columns.max(axis=1).tolist(), strict=True))
    for field, low, high in (("program", 0, DRUMS), ("pitch", 0, 127), ("velocity", 1, 127), ("track", 0, MOST_TRACKS - 1)):
        if lows[field] < low or highs[field] > high:
            raise ValueError(f"a note's {field} is outside {low}..{high}")
    if lows["onset"] < 0 or lows["duration"] < 1:
        raise ValueError("a note begins before tick 0 or lasts less than one tick")


def _check_changes(name: str, changes: np.ndarray) -> None:
    if not len(changes) or changes["tick"][0] != 0 or (np.diff(changes["tick"]) <= 0).any():
        raise ValueError(f"{name} must begin at tick 0 and have increasing ticks")
