"""RoleEvents: NoteEvents in two roles. The model draws its own events and is given the others."""

import dataclasses
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import LEADS, Lead
from sage_jax.tokenizers.note_events import NoteEvents

LATE_NOTES = "without length"  # what a late lead gives: a part of the vocabulary's identity


@dataclasses.dataclass(frozen=True)
class RoleEvents(NoteEvents):
    """A `NoteEvents` whose instrument ids exist twice: for own events, with the ids of NoteEvents, and for given ones.

    Each role is a stream of NoteEvents: its onsets count from the last event of the same role. So a sequence with given events
    has two clocks, which both begin with its head. `tasks.weave` merges two streams, and `split` separates them.

    After the head of a sequence with given events come its header: one LEAD event, whose pitch slot has the lead, and a
    declaration of each own track, which is a note event without pitch. The sequence of a piece without given events is that of
    NoteEvents. max_bar_step is 1, so that each bar has an event in each stream: a rest where nothing else is.
    """

    max_bar_step: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.max_bar_step != 1:
            raise UserError(f"tokenizer.max_bar_step is {self.max_bar_step}; events in roles need 1, an event in each bar")

    @classmethod
    def of(cls, grid: NoteEvents) -> "RoleEvents":
        """The events in roles on the same grid."""
        return cls(**{**dataclasses.asdict(grid), "max_bar_step": 1})

    # Vocabulary

    @property
    def to_given(self) -> int:
        """What a given event's instrument id has more than that of the same event as an own one."""
        return self.num_instruments - ev.FIRST

    @property
    def lead_event(self) -> int:
        """The instrument id of the event that has the lead."""
        return self.num_instruments + self.to_given

    @property
    def first_lead(self) -> int:
        """The pitch id of the first of LEADS."""
        return super().vocab_sizes[ev.PITCH]

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids of each attribute."""
        sizes = list(super().vocab_sizes)
        sizes[ev.INSTRUMENT], sizes[ev.PITCH] = self.lead_event + 1, self.first_lead + len(LEADS)
        return tuple(sizes)

    # Roles

    def is_given(self, events: Any) -> Any:
        """Which of `events` [..., 5] are given, bool [...]; numpy or jax arrays. The LEAD event is in no role."""
        kind = events[..., ev.INSTRUMENT]
        return (kind >= self.num_instruments) & (kind < self.lead_event)

    def is_header(self, events: Any) -> Any:
        """Which of `events` [..., 5] are a LEAD event or a declaration, bool [...]; numpy or jax arrays."""
        kind, pitch = events[..., ev.INSTRUMENT], events[..., ev.PITCH]
        return (kind == self.lead_event) | (kind >= ev.FIRST_PROGRAM) & (kind < self.num_instruments) & (pitch == ev.NONE)

    def header(self, lead: Lead, instruments: np.ndarray) -> np.ndarray:
        """The LEAD event and the declarations of own `instruments`, ids [n] in ascending order: int16 [1 + n, 5]."""
        rows = [(ev.FIRST, self.lead_event, self.first_lead + LEADS.index(lead), ev.NONE, ev.NONE)]
        rows += [(ev.FIRST, int(each), ev.NONE, ev.NONE, ev.NONE) for each in instruments]
        return np.array(rows, np.int16)

    def as_given(self, events: np.ndarray, lead: Lead) -> np.ndarray:
        """Events [N, 5] of one stream as given ones, as a model reads them that learns of them with `lead`.

        If that is late, notes have no length, NONE. Such a lead is of a player whose keys have just gone down: when the model
        has come to the tick t, it knows the player up to t - lead.
        """
        given = events.copy()
        given[:, ev.INSTRUMENT] += self.to_given
        if lead.quarters_late:
            given[self.is_note(events), ev.DURATION] = ev.NONE
        return given

    def split(self, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(own, given): the streams of `events` [N, 5], each with the head and as events of NoteEvents, int [M, 5].

        A given note without a length gets the shortest one.
        """
        events = np.asarray(events)
        is_given, is_header = self.is_given(events), self.is_header(events)
        own = events[~is_given & ~is_header]
        given = events[is_given].copy()
        given[:, ev.INSTRUMENT] -= self.to_given
        given[self.is_note(given) & (given[:, ev.DURATION] == ev.NONE), ev.DURATION] = ev.FIRST
        head = own[: self.HEAD] if len(given) else own[:0]
        return own, np.concatenate([head, given])

    def decode(self, events: np.ndarray) -> Piece:
        """The piece of both roles: all notes, with the tempos and meters of the own stream. As `NoteEvents.decode`."""
        events = np.asarray(events, np.int64)
        stop = np.flatnonzero(events[:, ev.ONSET] == ev.EOS)
        own, given = self.split(events[: stop[0]] if len(stop) else events)
        piece = super().decode(own)
        if not len(given):
            return piece
        notes = np.concatenate([piece.notes, super().decode(given).notes])
        return Piece(notes, piece.tempos, piece.meters, piece.ticks_per_quarter)

    # Identity

    def to_dict(self) -> dict:
        """The settings and the name of the tokenizer, JSON-ready."""
        roles = {"representation": "roles", "leads": [lead.name for lead in LEADS], "late_notes": LATE_NOTES}
        return {**super().to_dict(), **roles}

    @classmethod
    def from_dict(cls, values: dict) -> "RoleEvents":
        """The inverse of `to_dict`. Raises UserError for other leads, and where late notes had a length."""
        values = {name: value for name, value in values.items() if name not in ("representation", "tokenizer")}
        leads, late_notes = values.pop("leads", None), values.pop("late_notes", None)
        if leads != [lead.name for lead in LEADS]:
            raise UserError(f"the vocabulary has the leads {leads}, which are not those of this version; train again")
        if late_notes != LATE_NOTES:
            raise UserError("the model was given the lengths of a player's notes before they had ended; train again")
        return cls(**values)
