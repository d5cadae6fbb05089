"""Parts of a stream that a model can read by themselves: a head, and the steps from a bar or a note on."""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from sage_jax.music.events import index_in
from sage_jax.music.notes import DEFAULT_QPM
from sage_jax.music.remi import BAR, BOS, METER_OF, POSITION, PROGRAM, TEMPO_OF, Remi
from sage_jax.music.windows import LEAST_PAST, MOST_PAST

HEAD = 5  # BOS, Bar, TimeSig, Position 0 and Tempo, with which every stream begins


@dataclasses.dataclass(frozen=True)
class Excerpts:
    """Of one stream of steps.

    ids: int32 [N], none of which reaches into another bar. tokens: those of REMI+ that they tell, [T]. offsets: where among
    these each step begins, and T: [N + 1]. merge: makes ids of tokens with their head.
    """

    remi: Remi
    ids: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray
    merge: Callable[[np.ndarray], np.ndarray]

    def last(self, length: int) -> tuple[np.ndarray, int]:
        """(ids, bar): the last bars that fit in `length` steps, all if they do, and the number of the bar they begin in."""
        count = len(self.ids)
        if count <= length:
            return self.ids, 0
        # No bar behind which too much follows, and none of which the head would tell all, and more.
        follows = count - np.append(self._steps(self._bars[1:]), count)
        bars = self._bars[(follows + HEAD <= length) & (self._bars + HEAD < len(self.tokens))]
        for place in bars:
            found = self._from(place, count)
            if len(found) <= length:
                return found, self._bar(place)
        short = bisect.bisect_left(self._moments, True, key=lambda place: len(self._from(place, count)) <= length)
        place = self._moments[min(short, len(self._moments) - 1)]
        return self._from(place, count), self._bar(place)

    def all(self, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """(ids, first): windows of at most `context` steps, which from `first` on foretell all but BOS, each once."""
        yield self.ids[:context], 1
        done = min(context, len(self.ids))
        while done < len(self.ids):
            past = self._past(done, context)
            if len(past) >= context:
                raise ValueError(f"a context of {context} has no room for more than the past that a window begins with")
            stop = min(done + context - len(past), len(self.ids))
            yield np.concatenate([past, self.ids[done:stop]]), len(past)
            done = stop

    def _past(self, done: int, context: int) -> np.ndarray:
        """What stands before step `done` in its window: from a bar on, or else from anything that sounds or changes."""
        tried = []
        for places in (self._bars, self._moments):
            places = places[places + HEAD <= self.offsets[done]]
            short = bisect.bisect_left(places, True, key=lambda place: len(self._from(place, done)) < context * LEAST_PAST)
            # The last that is long enough, and the first that is not.
            near = [self._from(place, done) for place in places[max(short - 1, 0) : short + 1]]
            if short and len(near[0]) <= context * MOST_PAST:
                return near[0]
            tried += near
        return min(tried, key=len)

    def _from(self, place: int, stop: int) -> np.ndarray:
        """The steps from the token at `place` (a Bar, a Program or a Tempo) up to step `stop`, with their head."""
        tokens, kind = self.tokens, self._kind
        begin, position = place, []
        zero = self.remi.starts[POSITION]
        notes_share = PROGRAM in self.remi.followers[TEMPO_OF]  # the position of a tempo
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
        # Later bars stay as they are; the one that the head begins is merged anew.
        later = self._bars[self._bars > place]
        cut = min(int(self._steps(later[0])), stop) if len(later) else stop
        head = [BOS, self.remi.starts[BAR], meter, zero, tempo, *position]
        return np.concatenate([self.merge(np.append(head, tokens[begin : self.offsets[cut]])), self.ids[cut:stop]])

    @functools.cached_property
    def _kind(self) -> np.ndarray:
        return self.remi.kinds(self.tokens)

    @functools.cached_property
    def _bars(self) -> np.ndarray:
        """Where bars begin."""
        return np.flatnonzero(self._kind == BAR)

    @functools.cached_property
    def _moments(self) -> np.ndarray:
        """Where notes begin and tempos change, but for what a head tells."""
        before = np.append(0, self.tokens[:-1])
        return np.flatnonzero((self._kind == PROGRAM) | ((self._kind == TEMPO_OF) & (before != self.remi.starts[POSITION])))

    def _bar(self, place: int) -> int:
        return int(np.searchsorted(self._bars, place, "right")) - 1

    def _steps(self, places: np.ndarray) -> np.ndarray:
        """The step that begins at each place."""
        return np.searchsorted(self.offsets, places)

    def _latest(self, kind: int, stop: int, default: int = 0) -> int:
        """The last token of a kind before `stop`."""
        places = np.flatnonzero(self._kind[:stop] == kind)
        return int(self.tokens[places[-1]]) if len(places) else int(default)
