"""Parts of a piece that are no longer than what a model reads at once, cut at bar lines where its bars allow it."""

from collections.abc import Iterator

import numpy as np

LEAST_PAST, MOST_PAST = 0.5, 0.75  # of the context: what stands before what a further window foretells


def join(steps: np.ndarray, more: np.ndarray, bar: int) -> np.ndarray:
    """`steps`, and behind them `more`, which followed on the window of them that begins in `bar`."""
    return np.concatenate([steps, more])


class BarWindows:
    """Windows of NoteEvents: what it is mixed into has HEAD, `bar_starts`, `sounding`, `crop` and `bar_of`."""

    def window(self, steps: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """The last bars of `steps` [N, A] that fit in `length` steps, with their head, and the number of the bar they begin in.

        Of a last bar that is too long by itself, its last steps; all of `steps`, and 0, where they fit.
        """
        if len(steps) <= length:
            return steps, 0
        room = length - self.HEAD
        sounding = self.sounding(steps)
        fits = lambda places: places[len(steps) - places <= room]
        first = next((int(places[0]) for places in (fits(self.bar_starts(steps)), fits(sounding)) if len(places)), None)
        first = int(sounding[-1]) if first is None else first
        return self.crop(steps, first, len(steps)), self.bar_of(steps, first)

    join = staticmethod(join)

    def windows(self, steps: np.ndarray, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """(window, first): windows of at most `context` steps that from `first` on foretell each of `steps` but BOS, once.

        Behind the first one, which begins the piece, they have at least half a context before that where the piece has as much.
        """
        yield np.asarray(steps[:context]), 1
        done = min(context, len(steps))
        bars, sounding = self.bar_starts(steps), self.sounding(steps)
        room = context - self.HEAD
        while done < len(steps):
            first, last = done - int(room * MOST_PAST), done - int(room * LEAST_PAST)
            # From a bar line, or else from any event that sounds.
            choices = (places[(places >= first) & (places <= last)] for places in (bars, sounding))
            start = next((int(places[-1]) for places in choices if len(places)), None)
            if start is None:  # rests alone, behind what sounded last
                head = self.crop(steps, int(sounding[sounding < last][-1]), self.HEAD)
                stop = min(last + room, len(steps))
                crop = np.concatenate([head, steps[last:stop]])
            else:
                stop = min(start + room, len(steps))
                crop = self.crop(steps[:stop], start, context)
            # The head may have taken the place of events that say the same.
            yield crop, max(len(crop) - (stop - done), self.HEAD)
            done = stop
