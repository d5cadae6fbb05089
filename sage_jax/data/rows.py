"""Rows of a batch: one crop each, or several short pieces packed into one row."""

import bisect
import dataclasses
import threading
from collections.abc import Callable, Sequence

import numpy as np

from sage_jax.data.crops import CropSource, Region
from sage_jax.tokenizers.note_events import PAD


class SingleCropRows:
    """A grain source of rows; each is a list with one region."""

    def __init__(self, regions: CropSource):
        self._regions = regions

    def __len__(self) -> int:
        return len(self._regions)

    def __getitem__(self, index: int) -> list[Region]:
        return [self._regions[index]]


class PackedRows:
    """A grain source of rows; each is a list of regions with at most `context_events` events in all.

    Pieces of at most `context_events` events are packed whole. A region of a longer piece has a row of its own. Every region
    is in one row. The packing is fixed, so rows are random-access and identical for every reader.
    """

    def __init__(self, regions: CropSource, context_events: int):
        self._regions = regions
        self._rows = pack(regions.lengths, context_events)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> list[Region]:
        return [self._regions[region] for region in self._rows[index]]


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Packs items of `lengths` into rows of at most `capacity` in all; returns the indices of the items of each row.

    An item longer than `capacity` has a row of its own. Uses best-fit decreasing (Johnson 1973): the longest items first, each
    in the row with the least free space that fits.
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # rows by free space
    free: list[int] = []  # the keys of open_rows, ascending
    for item in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[item])
        place = bisect.bisect_left(free, length)
        if place < len(free):
            left = free[place]
            row = open_rows[left].pop()
            if not open_rows[left]:
                del open_rows[left], free[place]
        else:
            left, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        left -= length
        if left > 0:
            if left not in open_rows:
                bisect.insort(free, left)
            open_rows.setdefault(left, []).append(row)
    return rows


@dataclasses.dataclass(frozen=True)
class MapRow:
    """Applies `transform` to each item of a row, with the `rng` if grain passes one."""

    transform: Callable[..., np.ndarray]

    def __call__(self, row: list, *rng: np.random.Generator) -> list[np.ndarray]:
        return [self.transform(crop, *rng) for crop in row]


class PackingStats:
    """Thread-safe counters of the rows of a run.

    steps: the steps of all crops. cut: the steps that did not fit in their row. capacity: the length of all rows in steps.
    """

    def __init__(self):
        self.steps = self.cut = self.capacity = 0
        self._lock = threading.Lock()

    def add(self, steps: int, cut: int, capacity: int) -> None:
        """Adds to the counters."""
        with self._lock:
            self.steps += steps
            self.cut += cut
            self.capacity += capacity


@dataclasses.dataclass(frozen=True)
class PadRow:
    """Concatenates the crops of a row into {'events': int32 [num_steps + 1, A]}, cut off or padded with PAD at the end.

    Crops with a column more than attributes have their floors there: these become 'floors', int32 [num_steps + 1].
    tally: counts the steps, the steps that are cut off, and the capacity.
    """

    num_steps: int
    num_attributes: int
    tally: PackingStats = dataclasses.field(default_factory=PackingStats, compare=False)
    has_floors: bool = False

    def __call__(self, row: list[np.ndarray]) -> dict[str, np.ndarray]:
        capacity, place = self.num_steps + 1, 0
        events = np.full((capacity, self.num_attributes + self.has_floors), PAD, np.int32)
        for crop in row:
            fitting = crop[: capacity - place]
            events[place : place + len(fitting)] = fitting
            place += len(fitting)
        steps = sum(map(len, row))
        self.tally.add(steps, steps - place, capacity)
        if not self.has_floors:
            return {"events": events}
        return {"events": events[:, :-1], "floors": events[:, -1]}
