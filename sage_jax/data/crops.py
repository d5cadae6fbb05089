"""Crops of pieces: where they begin, how they are transposed, and told in another representation."""

import dataclasses
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from sage_jax.music.events import EOS, HEAD, INSTRUMENT, ONSET, REST, NoteEvents
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

    @property
    def lengths(self) -> np.ndarray:
        """The events of each region's piece, int [len(self)]: none of its crops has more."""
        return np.repeat(self._shards.lengths, self._counts)

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

    def __call__(self, region: Region, rng: np.random.Generator) -> np.ndarray:
        bars = self.tokenizer.bar_starts(region.events)
        # Bars after the first one whose crop reaches the end would only give shorter crops of the same.
        reaches_end = len(region.events) - (self.num_events + 1 - HEAD)
        bars = bars[: np.searchsorted(bars, reaches_end) + 1]
        first, last = (index * len(bars) // region.count for index in (region.index, region.index + 1))
        start = bars[rng.integers(first, max(last, first + 1))]
        crop = self.tokenizer.crop(region.events, int(start), self.num_events + 1)
        lowest, highest = self.tokenizer.pitch_range(crop) or (0, 127)
        semitones = rng.integers(max(self.transpose[0], -lowest), min(self.transpose[1], 127 - highest), endpoint=True)
        return self.tokenizer.transpose(crop, int(semitones))


@dataclasses.dataclass(frozen=True)
class Retell:
    """Tells a crop of NoteEvents in another representation."""

    tokenizer: NoteEvents
    representation: Representation

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        steps = retold(crop, self.tokenizer, self.representation)
        return steps if (crop[:, ONSET] == EOS).any() else steps[:-1]


class Passages:
    """A grain source of all the music of a split, in order: crops that follow on each other and begin at bar lines.

    A crop has at most `num_events` events, and told by `retell` at most `num_steps` steps, so that a model that reads these
    predicts them all. Only where a bar has more does one begin inside it. There are as many as `batch_size` divides: the last
    ones are empty. Of more than `max_batches` batches (0 for no limit) as many are kept, spread evenly.
    """

    def __init__(
        self,
        shards: TokenShards,
        tokenizer: NoteEvents,
        num_events: int,
        batch_size: int,
        max_batches: int = 0,
        retell: Retell | None = None,
        num_steps: int = 0,
    ):
        self._shards, self._tokenizer, self._num_events = shards, tokenizer, num_events
        self._retell, self._num_steps = retell, num_steps
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

    def __getitem__(self, item: int) -> list[np.ndarray]:
        return [self._crop(*self._places[item])] if item < len(self._places) else []

    def _crop(self, piece: int, start: int, stop: int) -> np.ndarray:
        crop = self._tokenizer.crop(self._shards[piece][:stop], start, self._num_events)
        return self._retell(crop) if self._retell else crop

    def _parts(self, piece: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """A passage in as few halves of halves as `retell` has room for."""
        if len(self._crop(piece, start, stop)) <= self._num_steps:
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
