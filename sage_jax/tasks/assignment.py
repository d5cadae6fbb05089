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
        last = max(whole.num_bars, stop_bar) if self.lead.span else stop_bar
        found = self._from_bar(whole, bar, now, self.stop)
        if len(found.prompt) > most:
            raise UserError(
                f"bars {bar + 1} to {stop_bar} have {len(found.prompt)} given events, and the model reads at most {most} at "
                "once; give fewer bars, or fewer tracks"
            )
        until = self.stop
        # What follows the span, and then what was before it.
        for bar_after in range(min(stop_bar + 1, last), min(stop_bar + RIGHT_BARS, last) + 1):
            later = whole.bar_start(bar_after)
            window = self._from_bar(whole, bar, now, later)
            if len(window.prompt) > RIGHT * most:
                break
            found, until = window, later
        first, step = bar, 1
        while first:
            first, step = max(first - step, 0), step * 2
            window = self._from_bar(whole, first, now, until)
            if len(window.prompt) > (most if self.lead.span else HISTORY * most):
                break
            found = window
        return found

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
