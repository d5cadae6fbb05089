"""The grid that all tokenizers share: ticks, durations, velocities, tempos and meters, and quantization to it."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, METER, Piece, bar_ticks, canonical, sort_keys
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.tracks import Track


@dataclasses.dataclass(frozen=True)
class Grid:
    """The values that each kind of token can have. Raises UserError for a setting that is out of range.

    ticks_per_quarter: ticks per quarter note, 4 to 96.
    max_bar_step: the most bars that one onset token of NoteEvents can advance, 1 to 16.
    max_bar_quarters: the length of the longest bar in quarters, 4 to 16.
    num_velocities: the number of bins of MIDI velocity, 1 to 127.
    tracks_per_program: the tracks of one program that stay apart, 1 to 16. The last of them takes in all tracks beyond it.
    """

    ticks_per_quarter: int = 12
    max_bar_step: int = 3
    max_bar_quarters: int = 8
    num_velocities: int = 32
    tracks_per_program: int = 1

    def __post_init__(self):
        for field, low, high in (
            ("ticks_per_quarter", 4, 96),
            ("max_bar_step", 1, 16),
            ("max_bar_quarters", 4, 16),
            ("num_velocities", 1, 127),
            ("tracks_per_program", 1, 16),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"tokenizer.{field} is {value!r}; give a whole number from {low} to {high}")

    @property
    def max_position(self) -> int:
        """The number of positions in the longest bar, in ticks."""
        return self.max_bar_quarters * self.ticks_per_quarter

    @functools.cached_property
    def durations(self) -> np.ndarray:
        """Durations in ticks: every tick up to two quarters, then coarser in steps, up to 64 quarters."""
        quarter = self.ticks_per_quarter
        steps = ((2, 1), (4, quarter // 4), (8, quarter // 2), (16, quarter), (64, 4 * quarter))
        values, last = [], 0
        for until, step in steps:
            values.append(np.arange(last + step, until * quarter + 1, step))
            last = until * quarter
        return np.concatenate(values)

    @functools.cached_property
    def velocities(self) -> np.ndarray:
        """MIDI velocities: the middle of each of `num_velocities` equal bins."""
        edges = 1 + 127 * np.arange(self.num_velocities + 1) // self.num_velocities
        return (edges[:-1] + edges[1:] - 1) // 2

    @functools.cached_property
    def tempos(self) -> np.ndarray:
        """Quarters per minute from 20 to 320, about 3% apart."""
        return np.unique(np.round(20 * 2 ** (np.arange(97) / 24)))

    @functools.cached_property
    def meters(self) -> tuple[tuple[int, int], ...]:
        """(numerator, denominator) of each meter whose bar is a whole number of ticks and at most `max_bar_quarters` long."""
        return tuple(
            (numerator, denominator)
            for denominator in (1, 2, 4, 8, 16)
            for numerator in range(1, 17)
            if 4 * numerator <= self.max_bar_quarters * denominator
            and 4 * self.ticks_per_quarter * numerator % denominator == 0
        )

    @functools.cached_property
    def meter_ticks(self) -> np.ndarray:
        """The bar length of each of `meters` in ticks, int [M]."""
        numerators, denominators = np.array(self.meters).T
        return bar_ticks(numerators, denominators, self.ticks_per_quarter)

    def duration_index(self, durations: np.ndarray) -> np.ndarray:
        """The index of each duration in `durations`. Raises ValueError for one that is not in them."""
        return _check_index(_look_up(self._nearest_duration, durations), self.durations, durations, "duration")

    def velocity_index(self, velocities: np.ndarray) -> np.ndarray:
        """The index of each velocity in `velocities`. Raises ValueError for one that is not in them."""
        return _check_index(_look_up(self._nearest_velocity, velocities), self.velocities, velocities, "velocity")

    def nearest_tempo(self, qpm: float) -> float:
        """The tempo of `tempos` that is nearest to `qpm` quarters per minute; of two equally near, the lower one."""
        return float(self.tempos[_nearest_index(self.tempos, np.array([qpm]))[0]])

    @functools.cached_property
    def _nearest_duration(self) -> np.ndarray:
        return _nearest_index(self.durations, np.arange(self.durations[-1] + 1))

    @functools.cached_property
    def _nearest_velocity(self) -> np.ndarray:
        return _nearest_index(self.velocities, np.arange(self.velocities[-1] + 1))

    def quantize(self, piece: Piece, loss: QuantizationStats | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the vocabulary can encode; adds the quantization error to `loss`.

        end: tempo and meter changes from this tick on are dropped; None for the end of the last note. Of notes with the same
        onset, program, track and pitch, the longest is kept. Raises ValueError for another number of ticks per quarter.
        """
        if piece.ticks_per_quarter != self.ticks_per_quarter:
            raise ValueError(f"the piece has {piece.ticks_per_quarter} ticks per quarter, not {self.ticks_per_quarter}")
        loss = QuantizationStats() if loss is None else loss
        notes = piece.notes.take(np.arange(len(piece.notes)))  # a copy, several times quicker than copy()
        notes["duration"] = self.durations[_look_up(self._nearest_duration, notes["duration"])]
        notes["velocity"] = self.velocities[_look_up(self._nearest_velocity, notes["velocity"])]
        error = np.abs(notes["duration"] - piece.notes["duration"])
        loss.duration_error_ticks += float(error.sum())
        loss.duration_error_ticks_max = max(loss.duration_error_ticks_max, float(error.max(initial=0)))
        loss.durations_clipped += int((piece.notes["duration"] > self.durations[-1]).sum())
        velocity_error = np.abs(notes["velocity"] - piece.notes["velocity"])
        loss.velocities_changed += int((velocity_error > 0).sum())
        loss.velocity_error += float(velocity_error.sum())
        loss.velocity_error_max = max(loss.velocity_error_max, float(velocity_error.max(initial=0)))
        notes, tracks = self.merge_tracks(notes, piece.tracks, loss)
        same = np.diff(sort_keys(notes)) == 0
        if same.any():
            loss.duplicate_notes += int(np.count_nonzero(same))
            notes = canonical(notes).compress(np.append(~same, True))
        # A change after the last note affects no note and would cost tokens.
        if end is None:
            end = int((notes["onset"].astype(np.int64) + notes["duration"]).max(initial=0))
        tempos, meters = (changes[changes["tick"] < max(end, 1)] for changes in (piece.tempos, piece.meters))
        loss.changes_after_the_end += len(piece.tempos) - len(tempos) + len(piece.meters) - len(meters)
        meters = self._quantize_meters(meters, end, loss)
        tempos = self._quantize_tempos(tempos, loss)
        return dataclasses.replace(piece, notes=notes, tempos=tempos, meters=meters, tracks=tracks)

    def merge_tracks(
        self, notes: np.ndarray, tracks: tuple[Track, ...], loss: QuantizationStats
    ) -> tuple[np.ndarray, tuple[Track, ...]]:
        """The notes, sorted, and the tracks once each program's tracks from `tracks_per_program` - 1 on are one.

        notes: changed in place. A merged track has the name of the first one in it.
        """
        last = self.tracks_per_program - 1
        if all(track.track <= last for track in tracks):
            return notes, tracks
        notes["track"] = np.minimum(notes["track"], last)
        names: dict[tuple[int, int], str] = {}
        for program, track, name in tracks:
            names.setdefault((program, min(track, last)), name)
        loss.tracks_merged += len(tracks) - len(names)
        return canonical(notes), tuple(Track(*key, name) for key, name in names.items())

    def _quantize_tempos(self, tempos: np.ndarray, loss: QuantizationStats) -> np.ndarray:
        nearest = tempos.copy()
        nearest["qpm"] = self.tempos[_nearest_index(self.tempos, tempos["qpm"])]
        error = np.abs(nearest["qpm"] / tempos["qpm"] - 1)
        loss.tempos_clipped += int(((tempos["qpm"] < self.tempos[0]) | (tempos["qpm"] > self.tempos[-1])).sum())
        loss.tempo_error_max = max(loss.tempo_error_max, float(error.max()))
        changed = np.append(True, np.diff(nearest["qpm"]) != 0)
        loss.tempos_merged += int((~changed).sum())
        return nearest[changed]

    def _quantize_meters(self, meters: np.ndarray, end: int, loss: QuantizationStats) -> np.ndarray:
        """`meters` [M] in terms of the vocabulary's meters, for a piece that ends at tick `end`."""
        rows = []
        ends = [*meters["tick"][1:].tolist(), end]
        for (tick, numerator, denominator), until in zip(meters.tolist(), ends, strict=True):
            parts = _split(self.meters, numerator, denominator)
            loss.meters_split += len(parts) > 1
            loss.meters_replaced += not parts
            rows += self._alternate(parts or [DEFAULT_METER], tick, until)
        nearest = np.array(rows, METER)
        kept = [0]
        for index in range(1, len(nearest)):
            last = nearest[kept[-1]]
            length = bar_ticks(last["numerator"], last["denominator"], self.ticks_per_quarter)
            on_bar_line = (nearest["tick"][index] - last["tick"]) % length == 0
            if on_bar_line and tuple(nearest[index])[1:] == tuple(last)[1:]:
                loss.meters_merged += 1
            else:
                kept.append(index)
        return nearest[kept]

    def _alternate(self, parts: Sequence[tuple[int, int]], tick: int, until: int) -> list[tuple[int, int, int]]:
        """(tick, numerator, denominator) of each meter change when bars of `parts` repeat in order from `tick` to `until`."""
        rows = [(tick, *parts[0])]
        if len(set(parts)) == 1:
            return rows
        pairs = itertools.pairwise(itertools.cycle(parts))
        while True:
            part, following = next(pairs)
            tick += int(bar_ticks(*part, self.ticks_per_quarter))
            if tick >= until:
                return rows
            if following != part:
                rows.append((tick, *following))


@functools.cache
def _split(meters: tuple[tuple[int, int], ...], numerator: int, denominator: int) -> tuple[tuple[int, int], ...]:
    """The fewest of `meters` that add up to one bar of numerator/denominator and differ by at most a beat; () if none do."""
    for count in range(1, numerator + 1):
        parts = tuple(((numerator + rest) // count, denominator) for rest in reversed(range(count)))
        if set(parts) <= set(meters):
            return parts
    return _split(meters, numerator // 2, denominator // 2) if numerator % 2 == denominator % 2 == 0 else ()


def _nearest_index(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The index of the entry of the sorted `table` that is nearest to each value; of two equally near, the lower one."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values, "left")


def _look_up(nearest: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The entry of `nearest` for each of `values`, whole numbers of at least 0; its last entry for larger ones."""
    return nearest[np.minimum(values, len(nearest) - 1)]


def index_in(table: np.ndarray, values: np.ndarray, name: str) -> np.ndarray:
    """The index of each value in the sorted `table`. Raises ValueError, with `name`, for a value that is not in it."""
    return _check_index(np.minimum(np.searchsorted(table, values), len(table) - 1), table, values, name)


def _check_index(index: np.ndarray, table: np.ndarray, values: np.ndarray, name: str) -> np.ndarray:
    if (table[index] != values).any():
        raise ValueError(f"a {name} is not in the vocabulary; quantize the piece first")
    return index
