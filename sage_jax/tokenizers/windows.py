"""Windows: parts of a piece that fit in a model's context, cut at bar lines where possible."""

import abc
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

MIN_HISTORY, MAX_HISTORY = 0.5, 0.75  # the fraction of the context that a window after the first spends on unscored steps


def join(steps: np.ndarray, more: np.ndarray, bar: int) -> np.ndarray:
    """`steps` [N, A] followed by `more` [M, A]: [N + M, A]. `bar` is ignored, since no id depends on the number of its bar."""
    return np.concatenate([steps, more])


class BarWindows(abc.ABC):
    """Mixin with the windows of NoteEvents, in terms of the crops and bar lines that the subclass defines."""

    HEAD: ClassVar[int]  # the number of events in the head of a crop: BOS and those with the meter and tempo in force

    @abc.abstractmethod
    def bar_starts(self, events: np.ndarray) -> np.ndarray:
        """Indices of the first event of each bar in `events` [N, A]."""

    @abc.abstractmethod
    def sounding(self, events: np.ndarray) -> np.ndarray:
        """Indices of the events that a crop of `events` [N, A] can begin with."""

    @abc.abstractmethod
    def crop(self, events: np.ndarray, start: int, length: int) -> np.ndarray:
        """At most `length` events: a head of HEAD events, then `events` [N, A] from `start` on."""

    @abc.abstractmethod
    def bar_of(self, events: np.ndarray, index: int) -> int:
        """The number of the bar of the event at `index` of `events` [N, A]."""

    def window(self, events: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """As `Tokenizer.window`."""
        if len(events) <= length:
            return events, 0
        capacity = length - self.HEAD
        sounding = self.sounding(events)
        fits = lambda starts: starts[len(events) - starts <= capacity]
        candidates = (fits(self.bar_starts(events)), fits(sounding), sounding[-1:])
        start = next(int(starts[0]) for starts in candidates if len(starts))
        return self.crop(events, start, len(events)), self.bar_of(events, start)

    join = staticmethod(join)

    def windows(self, events: np.ndarray, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """As `Tokenizer.windows`. Meter and tempo events that a head replaces are not scored.

        All windows but the first have at least (context - HEAD) // 2 events before `first`.
        """
        yield np.asarray(events[:context]), 1
        done = min(context, len(events))
        bars, sounding = self.bar_starts(events), self.sounding(events)
        capacity = context - self.HEAD
        while done < len(events):
            low, high = done - int(capacity * MAX_HISTORY), done - int(capacity * MIN_HISTORY)
            # Begin at a bar line, or else at any event that a crop can begin with.
            candidates = (starts[(starts >= low) & (starts <= high)] for starts in (bars, sounding))
            start = next((int(starts[-1]) for starts in candidates if len(starts)), None)
            if start is None:  # only rests: take the head of a crop from the last event before them
                head = self.crop(events, int(sounding[sounding < high][-1]), self.HEAD)
                stop = min(high + capacity, len(events))
                window = np.concatenate([head, events[high:stop]])
            else:
                stop = min(start + capacity, len(events))
                window = self.crop(events[:stop], start, context)
            # The head may replace meter and tempo events, which makes the window shorter.
            yield window, max(len(window) - (stop - done), self.HEAD)
            done = stop
