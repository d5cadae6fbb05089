"""Rows of a batch: one crop each, or several short pieces beside each other where they are packed."""

import bisect
import dataclasses
import threading
from collections.abc import Callable, Sequence

import numpy as np

from sage_jax.data.crops import Region, Regions
from sage_jax.music.events import PAD


class OneByOne:
    """A grain source of rows of one region each."""

    def __init__(self, regions: Regions):
        self._regions = regions

    def __len__(self) -> int:
        return len(self._regions)

    def __getitem__(self, item: int) -> list[Region]:
        return [self._regions[item]]


class Packed:
    """A grain source of rows of several regions each, which together have at most `num_events` events; each is in one row.

    Only pieces that are shorter are packed, whole: of a longer one a crop fills its row. Which are together stays as it is,
    so that a row can be read at random, and whoever reads it, it is the same.
    """

    def __init__(self, regions: Regions, num_events: int):
        self._regions = regions
        self._rows = pack(regions.lengths, num_events)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> list[Region]:
        return [self._regions[region] for region in self._rows[item]]


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The numbers of all items, in rows of at most `room` together, or of one that is longer; the longest first, each where it
    fits best ("best fit decreasing", Johnson 1973)."""
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # by the room that is left
    rooms: list[int] = []  # those that there are, rising
    for item in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[item])
        place = bisect.bisect_left(rooms, length)
        if place < len(rooms):
            left = rooms[place]
            row = open_rows[left].pop()
            if not open_rows[left]:
                del open_rows[left], rooms[place]
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(item)
        left -= length
        if left > 0:
            if left not in open_rows:
                bisect.insort(rooms, left)
            open_rows.setdefault(left, []).append(row)
    return rows


@dataclasses.dataclass(frozen=True)
class EachOf:
    """What is done to a crop, done to each of a row; `rng` is passed on where there is one."""

    transform: Callable[..., np.ndarray]

    def __call__(self, row: list, *rng: np.random.Generator) -> list[np.ndarray]:
        return [self.transform(crop, *rng) for crop in row]


class Tally:
    """Counts the steps of crops, those of them that had no room and were cut off, and the room; threads may add to it."""

    def __init__(self):
        self.steps = self.cut = self.room = 0
        self._lock = threading.Lock()

    def add(self, steps: int, cut: int, room: int) -> None:
        with self._lock:
            self.steps += steps
            self.cut += cut
            self.room += room


@dataclasses.dataclass(frozen=True)
class Fill:
    """Makes a row what a model reads: {'events': int32 [num_steps + 1, A]}, its crops one behind the other, PAD on the right."""

    num_steps: int
    num_attributes: int
    tally: Tally = dataclasses.field(default_factory=Tally, compare=False)

    def __call__(self, row: list[np.ndarray]) -> dict[str, np.ndarray]:
        room, place = self.num_steps + 1, 0
        events = np.full((room, self.num_attributes), PAD, np.int32)
        for crop in row:
            fitting = crop[: room - place]
            events[place : place + len(fitting)] = fitting
            place += len(fitting)
        steps = sum(map(len, row))
        self.tally.add(steps, steps - place, room)
        return {"events": events}
