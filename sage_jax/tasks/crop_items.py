"""The notes and changes of a crop with their places in musical time, as arrays."""

import dataclasses

import numpy as np

from sage_jax.music.notes import METER, BarGrid
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents

PER_ITEM = ("rows", "tick", "bar", "position", "next_bar")


@dataclasses.dataclass(frozen=True)
class CropItems:
    """The items of a crop: its notes and changes in canonical order, without BOS, EOS and rests.

    head: int16 [3, 5], BOS and the first meter and tempo, which are no items. rows: int16 [M, 5], the events; their onset slot
    means nothing. tick: int64 [M]. bar, position: int64 [M], the bar in which an event is encoded, and the ticks since it
    began; a change of meter is encoded in the bar that it cuts short. next_bar: int64 [M], the bar from which the next event
    counts. bars: the bar lines. end: the tick before which the music is complete. has_end: whether that is the piece's end.
    """

    head: np.ndarray
    rows: np.ndarray
    tick: np.ndarray
    bar: np.ndarray
    position: np.ndarray
    next_bar: np.ndarray
    bars: BarGrid
    end: int
    has_end: bool

    @classmethod
    def of(cls, events: np.ndarray, tokenizer: NoteEvents) -> "CropItems":
        """The items of `events` [N, 5], a crop of `tokenizer`. The last bar of a crop that does not end a piece is left out."""
        has_end = bool((events[:, ev.ONSET] == ev.EOS).any())
        timed = events[events[:, ev.ONSET] >= ev.FIRST]
        advanced, position = np.divmod(timed[:, ev.ONSET].astype(np.int64) - ev.FIRST, tokenizer.max_position)
        kind = timed[:, ev.INSTRUMENT]
        tick, meters = tokenizer.ticks(advanced, position, kind == ev.METER_CHANGE, timed[:, ev.PITCH].astype(np.int64))
        rows = np.array([(at, *tokenizer.meters[meter]) for at, meter in meters], METER)
        bars = BarGrid.from_meters(rows, tokenizer.ticks_per_quarter)
        next_bar = bars.locate(tick)[0]
        bar = next_bar - ((kind == ev.METER_CHANGE) & (position > 0))
        last = int(next_bar[-1])
        end = int(bars.start(np.array([last + has_end]))[0])
        kept = kind != ev.REST
        kept[: tokenizer.HEAD - 1] = False
        if not has_end:
            kept &= tick < end
        head = events[: tokenizer.HEAD]
        return cls(head, timed[kept], tick[kept], bar[kept], position[kept], next_bar[kept], bars, end, has_end)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_note(self) -> np.ndarray:
        """Which items are notes, bool [M]."""
        return self.rows[:, ev.INSTRUMENT] >= ev.FIRST_PROGRAM

    @property
    def num_bars(self) -> int:
        """The number of bars before `end`."""
        return int(self.bars.locate(np.array([max(self.end - 1, 0)]))[0][0]) + 1

    def bar_start(self, bar: int) -> int:
        """The tick at which a bar begins."""
        return int(self.bars.start(np.array([bar]))[0])

    def without_last(self, count: int) -> "CropItems":
        """The items before the bar in which the last `count` of them begin, at most seven eighths of the bars."""
        bar = min(int(self.next_bar[-min(count, len(self))]), self.num_bars * 7 // 8) if len(self) else 0
        end = self.bar_start(bar)
        return dataclasses.replace(self.only(self.tick < end), end=end, has_end=False)

    def only(self, chosen: np.ndarray) -> "CropItems":
        """The `chosen` items, bool [M]."""
        arrays = {name: getattr(self, name)[chosen] for name in PER_ITEM}
        return dataclasses.replace(self, **arrays)

    def joined(self, others: "CropItems") -> "CropItems":
        """These items and notes of another crop, which take their ticks to the bars of this one; none at `end` or later."""
        tick = others.tick[others.tick < self.end]
        bar, position, _ = self.bars.locate(tick)
        added = dict(rows=others.rows[: len(tick)], tick=tick, bar=bar, position=position, next_bar=bar)
        arrays = {name: np.concatenate([getattr(self, name), added[name]]) for name in PER_ITEM}
        order = np.lexsort((arrays["rows"][:, ev.PITCH], arrays["rows"][:, ev.INSTRUMENT], arrays["tick"]))
        return dataclasses.replace(self, **{name: values[order] for name, values in arrays.items()})
