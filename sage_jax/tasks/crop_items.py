"""The notes and changes of a crop with their places in musical time, as arrays."""

import dataclasses

import numpy as np

from sage_jax.music.notes import METER, BarGrid
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents

PER_ITEM = ("rows", "tick", "bar", "position", "next_bar", "bar_start", "bar_ticks")


@dataclasses.dataclass(frozen=True)
class CropItems:
    """The items of a crop: its notes and changes in canonical order, without BOS, EOS and rests.

    head: int16 [3, 5], BOS and the first meter and tempo, which are no items. rows: int16 [M, 5], the events; their onset slot
    means nothing. tick: int64 [M]. bar, position: int64 [M], the bar in which an event is encoded, and the ticks since it
    began; a change of meter is encoded in the bar that it cuts short. next_bar, bar_start, bar_ticks: int64 [M], the bar from
    which the next event counts, its first tick and its length. bars: the bar lines. end: the tick before which the music is
    complete. num_bars: the bars before it. has_end: whether that is the piece's end.
    """

    head: np.ndarray
    rows: np.ndarray
    tick: np.ndarray
    bar: np.ndarray
    position: np.ndarray
    next_bar: np.ndarray
    bar_start: np.ndarray
    bar_ticks: np.ndarray
    bars: BarGrid
    end: int
    num_bars: int
    has_end: bool

    @classmethod
    def of(cls, events: np.ndarray, tokenizer: NoteEvents) -> "CropItems":
        """The items of `events` [N, 5], a crop of `tokenizer`. The last bar of a crop that does not end a piece is left out."""
        has_end = bool(events[-1, ev.ONSET] == ev.EOS)
        timed = events[events[:, ev.ONSET] >= ev.FIRST]
        advanced, position = np.divmod(timed[:, ev.ONSET].astype(np.int64) - ev.FIRST, tokenizer.max_position)
        kind = timed[:, ev.INSTRUMENT]
        is_meter = kind == ev.METER_CHANGE
        tick, meters = tokenizer.ticks(advanced, position, is_meter, timed[:, ev.PITCH].astype(np.int64))
        bars = BarGrid.from_meters(
            np.array([(at, *tokenizer.meters[meter]) for at, meter in meters], METER), tokenizer.ticks_per_quarter
        )
        next_bar, since, row = bars.locate(tick)
        num_bars = int(next_bar[-1]) + has_end
        end = bars.start_of(num_bars)
        kept = kind != ev.REST
        kept[: tokenizer.HEAD - 1] = False
        if not has_end:
            kept &= tick < end
        return cls(
            head=events[: tokenizer.HEAD],
            rows=timed[kept],
            tick=tick[kept],
            bar=(next_bar - (is_meter & (position > 0)))[kept],
            position=position[kept],
            next_bar=next_bar[kept],
            bar_start=(tick - since)[kept],
            bar_ticks=bars.lengths[row][kept],
            bars=bars,
            end=end,
            num_bars=num_bars,
            has_end=has_end,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_note(self) -> np.ndarray:
        """Which items are notes, bool [M]."""
        return self.rows[:, ev.INSTRUMENT] >= ev.FIRST_PROGRAM

    def without_last(self, count: int) -> "CropItems":
        """The items before the bar in which the last `count` of them begin, at most seven eighths of the bars."""
        num_bars = min(int(self.next_bar[-min(count, len(self))]), self.num_bars * 7 // 8) if len(self) else 0
        end = self.bars.start_of(num_bars)
        return dataclasses.replace(self.only(self.tick < end), end=end, num_bars=num_bars, has_end=False)

    def only(self, chosen: np.ndarray) -> "CropItems":
        """The `chosen` items, bool [M]."""
        arrays = {name: getattr(self, name)[chosen] for name in PER_ITEM}
        return dataclasses.replace(self, **arrays)

    def joined(self, others: "CropItems") -> "CropItems":
        """These items and notes of another crop, which take their ticks to the bars of this one; none at `end` or later."""
        tick = others.tick[others.tick < self.end]
        bar, position, row = self.bars.locate(tick)
        added = dict(rows=others.rows[: len(tick)], tick=tick, bar=bar, position=position, next_bar=bar)
        added |= dict(bar_start=tick - position, bar_ticks=self.bars.lengths[row])
        arrays = {name: np.concatenate([getattr(self, name), added[name]]) for name in PER_ITEM}
        order = np.lexsort((arrays["rows"][:, ev.PITCH], arrays["rows"][:, ev.INSTRUMENT], arrays["tick"]))
        return dataclasses.replace(self, **{name: values[order] for name, values in arrays.items()})
