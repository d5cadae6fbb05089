"""Crops of pieces: random or sequential, transposed, and encoded by another tokenizer."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from sage_jax.corpus.shards import TokenShards
from sage_jax.corpus.splits import subsample_evenly
from sage_jax.data.augmentation import Augmentation
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.config import retokenize
from sage_jax.tokenizers.note_events import EOS, HEAD, INSTRUMENT, ONSET, REST, NoteEvents


@dataclasses.dataclass(frozen=True)
class Region:
    """The `index`-th of `count` parts of about equal length of a piece; one random crop begins in it.

    events: int16 [N, A], the whole piece.
    """

    events: np.ndarray
    index: int
    count: int


class CropSource:
    """A grain source with one Region per `context_events` events of a piece, so that long pieces are sampled more often."""

    def __init__(self, shards: TokenShards, context_events: int):
        self._shards = shards
        self._counts = -(-shards.lengths // context_events)
        self._ends = np.cumsum(self._counts)

    @property
    def lengths(self) -> np.ndarray:
        """The number of events of each region's piece, int [len(self)]; an upper bound on the length of its crops."""
        return np.repeat(self._shards.lengths, self._counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Region:
        piece = int(np.searchsorted(self._ends, index, "right"))
        count = int(self._counts[piece])
        return Region(self._shards[piece], index - int(self._ends[piece]) + count, count)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Takes a crop of up to `context_events` + 1 events from a random bar line of a region, randomly transposed.

    transpose: the lowest and the highest transposition in semitones, narrowed so that no note leaves MIDI's range, or that of
    its instrument if `changes` has ranges. changes: further ones; None for none.
    """

    tokenizer: NoteEvents
    context_events: int
    transpose: tuple[int, int]
    changes: Augmentation | None = None

    def __call__(self, region: Region, rng: np.random.Generator) -> np.ndarray:
        bars = self.tokenizer.bar_starts(region.events)
        # Skip bars after the first one whose crop reaches the end: their crops are suffixes of its crop.
        events, length, changes = region.events, self.context_events + 1, self.changes
        stop = np.searchsorted(bars, len(events) - (length - HEAD)) + 1
        if changes and changes.config.cut_start and rng.random() < changes.config.cut_start:
            stop = max(stop, np.searchsorted(bars, len(events) // 2))
        bars = bars[:stop]
        first, last = (index * len(bars) // region.count for index in (region.index, region.index + 1))
        start = bars[rng.integers(first, max(last, first + 1))]
        crop = self.tokenizer.crop(events, int(start), length * (changes.spare if changes else 1))
        crop = changes(crop, length, rng) if changes else crop
        down, up = (changes and changes.shifts(crop)) or self._shifts(crop)
        semitones = rng.integers(max(self.transpose[0], down), min(self.transpose[1], up), endpoint=True)
        return self.tokenizer.transpose(crop, int(semitones))

    def _shifts(self, crop: np.ndarray) -> tuple[int, int]:
        """The lowest and the highest transposition that keep all notes of `crop` within MIDI's range."""
        lowest, highest = self.tokenizer.pitch_range(crop) or (0, 127)
        return -lowest, 127 - highest


@dataclasses.dataclass(frozen=True)
class Retokenize:
    """Encodes a crop of `source` with another tokenizer, `target`: int [N, A] -> int [M, A'].

    EOS is dropped unless the crop has one.
    """

    source: NoteEvents
    target: Tokenizer

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        steps = retokenize(crop, self.source, self.target)
        return steps if (crop[:, ONSET] == EOS).any() else steps[:-1]


class SequentialCrops:
    """A grain source of consecutive crops that cover a split in order; each item is a list with one crop.

    Crops begin at bar lines; a crop begins inside a bar only if the bar has too many events. A crop has at most
    `context_events` events and, after `retokenizer`, at most `num_steps` steps.

    The source is padded with empty items to a multiple of `batch_size`. If it has more than `max_batches` batches (0 for no
    limit), crops are subsampled evenly.
    """

    def __init__(
        self,
        shards: TokenShards,
        tokenizer: NoteEvents,
        context_events: int,
        batch_size: int,
        max_batches: int = 0,
        retokenizer: Callable[[np.ndarray], np.ndarray] | None = None,
        num_steps: int = 0,
    ):
        self._shards, self._tokenizer, self._context_events = shards, tokenizer, context_events
        self._retokenizer, self._num_steps = retokenizer, num_steps
        self._spans = [
            (piece, start, stop)
            for piece in range(len(shards))
            for start, stop in split_at_bars(tokenizer, shards[piece], context_events - HEAD)
        ]
        if max_batches:
            self._spans = subsample_evenly(self._spans, max_batches * batch_size)
        if retokenizer:
            self._spans = [(piece, *part) for piece, *span in self._spans for part in self._fitting(piece, *span)]
        self._length = -(-len(self._spans) // batch_size) * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> list[np.ndarray]:
        return [self._crop(*self._spans[index])] if index < len(self._spans) else []

    def _crop(self, piece: int, start: int, stop: int) -> np.ndarray:
        crop = self._tokenizer.crop(self._shards[piece][:stop], start, self._context_events)
        return self._retokenizer(crop) if self._retokenizer else crop

    def _fitting(self, piece: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of parts of a span that have at most `num_steps` steps each, by halving the span recursively."""
        if len(self._crop(piece, start, stop)) <= self._num_steps:
            yield start, stop
            return
        events, middle = self._shards[piece], (start + stop) // 2
        candidates = (self._tokenizer.bar_starts(events), self._tokenizer.sounding(events))
        choices = (places[(places > start) & (places < stop)] for places in candidates)
        inside = next((places for places in choices if len(places)), None)
        if inside is None:
            yield start, stop
        else:
            cut = int(inside[np.abs(inside - middle).argmin()])
            yield from self._fitting(piece, start, cut)
            yield from self._fitting(piece, cut, stop)


def split_at_bars(tokenizer: NoteEvents, events: np.ndarray, max_events: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive parts of at most `max_events` of `events` [N, A], cut at bar lines where possible."""
    bars = tokenizer.bar_starts(events)
    sounding = np.flatnonzero(events[:, INSTRUMENT] > REST)  # a crop cannot begin with a rest or EOS
    start, end = int(bars[0]), len(events)
    while start < end:
        stop = end
        if start + max_events < end:
            later = sounding[sounding > start]
            choices = bars[(bars > start) & (bars <= start + max_events)], later[later <= start + max_events]
            # If the rests after an event alone fill the part, it is longer; its crop drops the last rests.
            stop = next((int(places[-1]) for places in choices if len(places)), int(later[0]) if len(later) else end)
        yield start, stop
        start = stop
