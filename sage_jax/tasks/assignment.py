"""What a model is to write: which tracks, in which bars, and when it learns of the rest."""

import dataclasses

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.tasks.crop_items import CropItems
from sage_jax.tasks.weave import Part, Woven, weave
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import Lead
from sage_jax.tokenizers.role_events import RoleEvents

RIGHT_BARS = 8  # the most bars after a span that a model reads
PROMPT = 0.7  # the share of a context that a prompt takes at most
HISTORY, RIGHT = 0.7, 0.6  # the shares of that for what was before, where given notes are to come, and for what follows a span


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The tracks `own` of `piece` in the ticks [start, stop) are for the model; their notes there are left out.

    piece: quantized; all its other notes are given. own: (program, track) each. lead: when the model knows what is given.
    Raises UserError, naming the field, for what cannot be done.
    """

    piece: Piece
    tokenizer: RoleEvents
    own: tuple[tuple[int, int], ...]
    start: int
    stop: int
    lead: Lead

    def __post_init__(self):
        if not self.own:
            raise UserError("own is empty; name at least one track that the model writes")
        if not 0 <= self.start < self.stop:
            raise UserError(f"start is tick {self.start} and stop {self.stop}; give a later stop")
        if not len(self.given):
            raise UserError("nothing is given: every note is the model's; leave a track or some bars to the piece")

    @property
    def instruments(self) -> np.ndarray:
        """The instrument ids of `own`, int [n], ascending."""
        return np.array(sorted(int(self.tokenizer.instrument_of(*track)) for track in self.own))

    @property
    def is_own(self) -> np.ndarray:
        """Which notes of the piece are of the tracks `own`, in any bar: bool [N]."""
        return np.isin(self.tokenizer.note_ids(self.piece.notes)[:, 0], self.instruments)

    @property
    def replaced(self) -> np.ndarray:
        """Which notes of the piece the model's take the place of, bool [N]."""
        notes = self.piece.notes
        return self.is_own & (notes["onset"] >= self.start) & (notes["onset"] < self.stop)

    @property
    def given(self) -> np.ndarray:
        """The notes that stay as they are, NOTE [n]."""
        return self.piece.notes[~self.replaced]

    def context(self, written: np.ndarray) -> Piece:
        """The piece with the notes `written`, NOTE [n], in place of those that are replaced."""
        return self.piece.with_notes(np.concatenate([self.given, written]))

    def window(self, written: np.ndarray, now: int, limit: int) -> "AssignmentWindow":
        """What a model with a context of `limit` events reads to go on at the tick `now`, after the notes `written` before it.

        Its prompt leaves space for what follows. Raises UserError if the given notes of a span alone are too many.
        """
        whole, most = self.context(written), int(PROMPT * limit)
        bar, stop_bar = whole.bar_of(now), whole.bar_of(self.stop - 1) + 1
        until_bar, last = stop_bar, min(stop_bar + RIGHT_BARS, whole.num_bars)
        own, given = self._events_before_bars(whole, max(last, stop_bar) + (self.lead.bars or 0) + 1)
        heads = self.tokenizer.HEAD + 1 + len(self.own)
        length = lambda first, later: heads + own[bar + 1] - own[first] + given[later] - given[first]
        if self.lead.span:  # what follows the span, and then what was before it
            while until_bar < last and length(bar, until_bar + 1) <= RIGHT * most:
                until_bar += 1
            share, known = most, until_bar
        else:
            share, known = int(HISTORY * most), bar if self.lead.bars is None else bar + 1 + self.lead.bars
        first = bar
        while first and length(first - 1, known) <= share:
            first -= 1
        # The counts are close, but some given events of the last bars are not known yet.
        window = lambda first: self._from_bar(whole, first, now, max(whole.bar_start(until_bar), self.stop))
        found = window(first)
        while first and len((longer := window(first - 1)).prompt) <= share:
            found, first = longer, first - 1
        while len(found.prompt) > share and first < bar:
            first += 1
            found = window(first)
        while len(found.prompt) > most and until_bar > stop_bar:
            until_bar -= 1
            found = window(first)
        if len(found.prompt) > most:
            raise UserError(
                f"bars {bar + 1} to {stop_bar} have {len(found.prompt)} given events, and the model reads at most {most} at "
                "once; give fewer bars, or fewer tracks"
            )
        return found

    def _events_before_bars(self, whole: Piece, bars: int) -> tuple[np.ndarray, np.ndarray]:
        """How many own and given events there are before each of the first `bars` bars, int [bars + 1] each, rests included."""
        is_own = np.isin(self.tokenizer.note_ids(whole.notes)[:, 0], self.instruments) & (whole.notes["onset"] < self.stop)
        ticks = whole.notes["onset"], whole.meters["tick"], whole.tempos["tick"]
        notes, meters, tempos = (whole.bars.locate(each.astype(np.int64))[0] for each in ticks)
        each_bar = lambda items: np.maximum(np.bincount(np.concatenate(items), minlength=bars)[:bars], 1)
        before = lambda items: np.concatenate([[0], np.cumsum(each_bar(items))])
        return before([notes[is_own], meters, tempos]), before([notes[~is_own], meters])

    def _from_bar(self, whole: Piece, first: int, now: int, until: int) -> "AssignmentWindow":
        offset = whole.bar_start(first)
        end = max(until, now + 1)
        part_of_piece = whole.slice_bars(first, max(whole.bar_of(end - 1) + 1, first + 1))
        items = CropItems.of(self.tokenizer.encode(part_of_piece), self.tokenizer)
        own = np.isin(items.rows[:, ev.INSTRUMENT], self.instruments)
        part = Part(own, self.lead, now - offset, self.stop - offset, until - offset)
        return AssignmentWindow.of(weave(items, part, self.tokenizer, self.instruments), part, offset, self.tokenizer)


@dataclasses.dataclass(frozen=True)
class Push:
    """Events that become known at the tick `key` of a window: given ones, int16 [n, 5], and the changes of the own stream.

    changes: (tick, instrument id, pitch id) each.
    """

    key: int
    given: np.ndarray
    changes: tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class AssignmentWindow:
    """A part of an assignment that fits into a context. Its ticks count from `offset`, a bar line of the piece.

    prompt: int16 [N, 5], BOS first: what the model knows when it begins at `start`. pushes: what it learns later, in order.
    """

    offset: int
    start: int
    stop: int
    prompt: np.ndarray
    pushes: tuple[Push, ...]

    @classmethod
    def of(cls, woven: Woven, part: Part, offset: int, tokenizer: RoleEvents) -> "AssignmentWindow":
        """The window of a sequence whose own stream has nothing but changes, and rests that the model replaces, from
        `part.start` on."""
        events, keys = woven.events[:-1], woven.keys[:-1]
        is_given, is_header = tokenizer.is_given(events), tokenizer.is_header(events)
        is_change = (events[:, ev.INSTRUMENT] == ev.METER_CHANGE) | (events[:, ev.INSTRUMENT] == ev.TEMPO_CHANGE)
        known = np.where(is_given | is_change, keys <= part.start, keys < part.start) | is_header
        known[: tokenizer.HEAD] = True
        later = ~known & (is_given | is_change) & (keys < part.stop)
        pushes = []
        for key in np.unique(keys[later]).tolist():
            now = later & (keys == key)
            changes = [(key, int(kind), int(pitch)) for _, kind, pitch, *_ in events[now & is_change].tolist()]
            pushes.append(Push(key, events[now & is_given], tuple(changes)))
        return cls(offset, part.start, part.stop, events[known], tuple(pushes))
