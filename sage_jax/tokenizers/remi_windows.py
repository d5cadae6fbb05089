"""Windows of a REMI+ stream: a head with the meter and tempo in force, then the steps from a bar or a note on."""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from sage_jax.music.notes import DEFAULT_QPM
from sage_jax.tokenizers.grid import index_in
from sage_jax.tokenizers.remi import BAR, BOS, METER_OF, POSITION, PROGRAM, TEMPO_OF, Remi
from sage_jax.tokenizers.windows import MAX_HISTORY, MIN_HISTORY

HEAD = 5  # the number of tokens that begin every stream: BOS, Bar, TimeSig, Position 0 and Tempo


@dataclasses.dataclass(frozen=True)
class StreamWindows:
    """The windows of one stream.

    remi: the tokenizer of the tokens.
    ids: int32 [N], the steps, each within one bar.
    tokens: int [T], the tokens of all steps.
    offsets: int [N + 1], the index in `tokens` at which each step begins, and T.
    merge: maps tokens that begin with a head to ids.
    """

    remi: Remi
    ids: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray
    merge: Callable[[np.ndarray], np.ndarray]

    def last(self, length: int) -> tuple[np.ndarray, int]:
        """(ids, bar): the last bars that fit in `length` steps with their head, and the number of the first of them.

        If all steps fit, they are the window and bar is 0. If the last bar alone is too long, the window has its last notes.
        """
        count = len(self.ids)
        if count <= length:
            return self.ids, 0
        # Skip bars with too many steps after them, and a last bar that the head would replace as a whole.
        following = count - np.append(self._steps(self._bars[1:]), count)
        bars = self._bars[(following + HEAD <= length) & (self._bars + HEAD < len(self.tokens))]
        for place in bars:
            window = self._from(place, count)
            if len(window) <= length:
                return window, self._bar(place)
        short = bisect.bisect_left(self._moments, True, key=lambda place: len(self._from(place, count)) <= length)
        place = self._moments[min(short, len(self._moments) - 1)]
        return self._from(place, count), self._bar(place)

    def all(self, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """(ids, first): windows of at most `context` steps, of which those from `first` on are scored.

        Each step but BOS is scored once. Raises ValueError for a context that a window's history would fill.
        """
        yield self.ids[:context], 1
        done = min(context, len(self.ids))
        while done < len(self.ids):
            history = self._history(done, context)
            if len(history) >= context:
                raise ValueError(f"a context of {context} is too short: the head and history of a window fill it")
            stop = min(done + context - len(history), len(self.ids))
            yield np.concatenate([history, self.ids[done:stop]]), len(history)
            done = stop

    def _history(self, done: int, context: int) -> np.ndarray:
        """The ids before step `done` in its window: from a bar on, or else from any note or tempo change."""
        tried = []
        for places in (self._bars, self._moments):
            places = places[places + HEAD <= self.offsets[done]]
            short = bisect.bisect_left(places, True, key=lambda place: len(self._from(place, done)) < context * MIN_HISTORY)
            # The last place with enough history, and the first with too little.
            near = [self._from(place, done) for place in places[max(short - 1, 0) : short + 1]]
            if short and len(near[0]) <= context * MAX_HISTORY:
                return near[0]
            tried += near
        return min(tried, key=len)

    def _from(self, place: int, stop: int) -> np.ndarray:
        """The head, then the steps from the token at `place` (a Bar, a Program or a Tempo) up to step `stop`."""
        tokens, kind = self.tokens, self._kind
        begin, position = place, []
        zero = self.remi.starts[POSITION]
        notes_share = PROGRAM in self.remi.followers[TEMPO_OF]  # a note shares the Position of a Tempo before it
        if kind[place] == BAR:
            begin += 2
            if tokens[begin : begin + 1] == [zero]:
                changes = kind[begin + 1 : begin + 2] == [TEMPO_OF]
                begin += 2 if changes else notes_share
        else:
            position = [self._latest(POSITION, place, zero)]
            position = [] if notes_share and position == [zero] else position
        qpm = int(index_in(self.remi.grid.tempos, np.array([DEFAULT_QPM]), "tempo")[0])
        meter, tempo = self._latest(METER_OF, begin), self._latest(TEMPO_OF, begin, self.remi.starts[TEMPO_OF] + qpm)
        # The bar after the head is merged again; later bars keep their ids.
        later = self._bars[self._bars > place]
        cut = min(int(self._steps(later[:1])[0]), stop) if len(later) else stop
        head = [BOS, self.remi.starts[BAR], meter, zero, tempo, *position]
        return np.concatenate([self.merge(np.append(head, tokens[begin : self.offsets[cut]])), self.ids[cut:stop]])

    @functools.cached_property
    def _kind(self) -> np.ndarray:
        return self.remi.kinds(self.tokens)

    @functools.cached_property
    def _bars(self) -> np.ndarray:
        """Indices of the tokens that begin bars."""
        return np.flatnonzero(self._kind == BAR)

    @functools.cached_property
    def _moments(self) -> np.ndarray:
        """Indices of the tokens that begin notes or change the tempo, except a Tempo at position 0, which a head states."""
        before = np.append(0, self.tokens[:-1])
        return np.flatnonzero((self._kind == PROGRAM) | ((self._kind == TEMPO_OF) & (before != self.remi.starts[POSITION])))

    def _bar(self, place: int) -> int:
        """The number of the bar of the token at `place`."""
        return int(np.searchsorted(self._bars, place, "right")) - 1

    def _steps(self, places: np.ndarray) -> np.ndarray:
        """The step that begins at each of the tokens at `places`."""
        return np.searchsorted(self.offsets, places)

    def _latest(self, kind: int, stop: int, default: int = 0) -> int:
        """The last token of `kind` before the token at `stop`, or `default`."""
        places = np.flatnonzero(self._kind[:stop] == kind)
        return int(self.tokens[places[-1]]) if len(places) else int(default)
