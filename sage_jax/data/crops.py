"""Crops of pieces: where they begin, how they are transposed and padded."""

import dataclasses
import threading
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from sage_jax.music.events import EOS, HEAD, INSTRUMENT, NUM_ATTRIBUTES, ONSET, PAD, REST, NoteEvents
from sage_jax.music.representation import Representation, retold
from sage_jax.music.shards import TokenShards

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of a piece, from which one random crop is to be taken: the `index`-th of `count` of about equal length."""

    events: np.ndarray  # [N, A], of the whole piece
    index: int
    count: int


class Regions:
    """A grain source with one Region for each `num_events` events of a piece, so that pieces weigh by their length."""

    def __init__(self, shards: TokenShards, num_events: int):
        self._shards = shards
        self._counts = -(-shards.lengths // num_events)
        self._ends = np.cumsum(self._counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, item: int) -> Region:
        piece = int(np.searchsorted(self._ends, item, "right"))
        count = int(self._counts[piece])
        return Region(self._shards[piece], item - int(self._ends[piece]) + count, count)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Takes a crop of `num_events` + 1 events that begins at a random bar line of a region, in a random key.

    transpose: the lowest and the highest number of semitones, narrowed so that no note leaves MIDI's range.
    """

    tokenizer: NoteEvents
    num_events: int
    transpose: tuple[int, int]

    def __call__(self, region: Region, rng: np.random.Generator) -> dict[str, np.ndarray]:
        bars = self.tokenizer.bar_starts(region.events)
        # Bars after the first one whose crop reaches the end would only give shorter crops of the same.
        reaches_end = len(region.events) - (self.num_events + 1 - HEAD)
        bars = bars[: np.searchsorted(bars, reaches_end) + 1]
        first, last = (index * len(bars) // region.count for index in (region.index, region.index + 1))
        start = bars[rng.integers(first, max(last, first + 1))]
        crop = self.tokenizer.crop(region.events, int(start), self.num_events + 1)
        lowest, highest = self.tokenizer.pitch_range(crop) or (0, 127)
        semitones = rng.integers(max(self.transpose[0], -lowest), min(self.transpose[1], 127 - highest), endpoint=True)
        return padded(self.tokenizer.transpose(crop, int(semitones)), self.num_events)


class Tally:
    """Counts the steps of crops, and those of them that had no room and were cut off; threads may add to it."""

    def __init__(self):
        self.steps = self.cut = 0
        self._lock = threading.Lock()

    def add(self, steps: int, cut: int) -> None:
        with self._lock:
            self.steps += steps
            self.cut += cut


@dataclasses.dataclass(frozen=True)
class Retell:
    """Tells a crop of NoteEvents in another representation; what has no room in `num_steps` + 1 steps is cut off, and counted."""

    tokenizer: NoteEvents
    representation: Representation
    num_steps: int
    tally: Tally = dataclasses.field(default_factory=Tally, compare=False)

    def __call__(self, crop: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        steps, room = self._steps(crop["events"]), self.num_steps + 1
        self.tally.add(len(steps), max(0, len(steps) - room))
        return padded(steps[:room], self.num_steps)

    def fits(self, events: np.ndarray) -> bool:
        """Whether the model reads and predicts all of the crop."""
        return len(self._steps(events)) <= self.num_steps

    def _steps(self, events: np.ndarray) -> np.ndarray:
        if (events[:, ONSET] == PAD).all():  # what fills the last batch stays padding
            return np.zeros((0, len(self.representation.attributes)), np.int32)
        steps = retold(events, self.tokenizer, self.representation)
        return steps if (events[:, ONSET] == EOS).any() else steps[:-1]


class Passages:
    """A grain source of all the music of a split, in order: crops that follow on each other and begin at bar lines.

    A crop has at most `num_events` events, so that a model that reads these predicts them all, and fits where `retell` gives
    it room. Only where a bar has more does one begin inside it. There are as many as `batch_size` divides: the last ones are
    padding alone. Of more than `max_batches` batches (0 for no limit) as many are kept, spread evenly.
    """

    def __init__(
        self,
        shards: TokenShards,
        tokenizer: NoteEvents,
        num_events: int,
        batch_size: int,
        max_batches: int = 0,
        retell: Retell | None = None,
    ):
        self._shards, self._tokenizer, self._num_events, self._retell = shards, tokenizer, num_events, retell
        self._places = [
            (piece, start, stop)
            for piece in range(len(shards))
            for start, stop in passages(tokenizer, shards[piece], num_events - HEAD)
        ]
        if max_batches:
            self._places = evenly(self._places, max_batches * batch_size)
        if retell:
            self._places = [(piece, *part) for piece, *place in self._places for part in self._parts(piece, *place)]
        self._length = -(-len(self._places) // batch_size) * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, item: int) -> dict[str, np.ndarray]:
        if item >= len(self._places):
            return padded(np.zeros((0, NUM_ATTRIBUTES), np.int16), self._num_events)
        return padded(self._crop(*self._places[item]), self._num_events)

    def _crop(self, piece: int, start: int, stop: int) -> np.ndarray:
        return self._tokenizer.crop(self._shards[piece][:stop], start, self._num_events)

    def _parts(self, piece: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """A passage in as few halves of halves as `retell` has room for."""
        if self._retell.fits(self._crop(piece, start, stop)):
            yield start, stop
            return
        events, middle = self._shards[piece], (start + stop) // 2
        places = (self._tokenizer.bar_starts(events), self._tokenizer.sounding(events))
        choices = (each[(each > start) & (each < stop)] for each in places)
        inside = next((each for each in choices if len(each)), None)
        if inside is None:
            yield start, stop
        else:
            cut = int(inside[np.abs(inside - middle).argmin()])
            yield from self._parts(piece, start, cut)
            yield from self._parts(piece, cut, stop)


def passages(tokenizer: NoteEvents, events: np.ndarray, room: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of parts of at most `room` events that make up a piece, cut at bar lines where its bars allow it."""
    bars = tokenizer.bar_starts(events)
    sounding = np.flatnonzero(events[:, INSTRUMENT] > REST)  # a crop can't begin with a rest or EOS
    start, end = int(bars[0]), len(events)
    while start < end:
        stop = end
        if start + room < end:
            later = sounding[sounding > start]
            choices = bars[(bars > start) & (bars <= start + room)], later[later <= start + room]
            # If even the rests after an event fill the crop, those that are too many are cut off.
            stop = next((int(places[-1]) for places in choices if len(places)), int(later[0]) if len(later) else end)
        yield start, stop
        start = stop


def evenly(items: list[Item], most: int) -> list[Item]:
    """`items`, or where there are more than `most` of them, as many, spread evenly over all."""
    return [items[index * len(items) // most] for index in range(most)] if len(items) > most else items


def padded(events: np.ndarray, num_events: int) -> dict[str, np.ndarray]:
    """{'events': int32 [num_events + 1, A]}: `events` with PAD events on the right."""
    crop = np.full((num_events + 1, events.shape[1]), PAD, np.int32)
    crop[: len(events)] = events
    return {"events": crop}
