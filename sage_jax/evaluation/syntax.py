"""Counts syntax errors in generated tokens and implausible notes in generated music."""

import dataclasses
import operator

import numpy as np

from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import NoteEvents

DRUM_KEYS = (27, 87)  # the drum sounds of General MIDI level 2
PITCHED_KEYS = (12, 119)  # C0 to B8, wider than the range of any orchestral instrument except the organ


@dataclasses.dataclass(frozen=True)
class SyntaxErrors:
    """Counts that add up over pieces.

    tokens, notes: totals. invalid: tokens that are illegal at their position. reversals: events earlier than their predecessor.
    duplicates: notes with the onset, program, track and pitch of another note.
    unplayable: pitches under 12 or over 119, and drum keys without a General MIDI sound.
    """

    tokens: int = 0
    notes: int = 0
    invalid: int = 0
    reversals: int = 0
    duplicates: int = 0
    unplayable: int = 0

    def __add__(self, other: "SyntaxErrors") -> "SyntaxErrors":
        return SyntaxErrors(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __sub__(self, other: "SyntaxErrors") -> "SyntaxErrors":
        return SyntaxErrors(*map(operator.sub, dataclasses.astuple(self), dataclasses.astuple(other)))


def step_errors(tokenizer: Tokenizer, steps: np.ndarray) -> SyntaxErrors:
    """The errors of `steps` [N, A]: token by token for NoteEvents, otherwise only those of the decoded notes.

    Raises ValueError for undecodable steps of another tokenizer than NoteEvents; its grammar never generates them.
    """
    if isinstance(tokenizer, NoteEvents):
        return event_errors(tokenizer, steps)
    num_steps = int((steps[:, 0] > ev.EOS).sum())
    return dataclasses.replace(note_errors(tokenizer.decode(steps)), tokens=num_steps * steps.shape[1])


def event_errors(tokenizer: NoteEvents, events: np.ndarray) -> SyntaxErrors:
    """The errors of `events` [N, A], which need not be decodable.

    BOS, EOS and PAD events are not counted, and neither is anything after EOS. Events sampled under the grammar have no invalid
    token, no reversal and no duplicate.
    """
    events = np.asarray(events, np.int64)
    stop = np.flatnonzero(events[:, ev.ONSET] == ev.EOS)
    events = events[: stop[0]] if len(stop) else events
    events = events[~(events <= ev.EOS).all(axis=1)]
    wrong = _invalid(tokenizer, events)
    valid = events[~wrong.any(axis=1)]
    advance, position = np.divmod(valid[:, ev.ONSET] - ev.FIRST, tokenizer.max_position)
    # A meter change begins a bar at its own position, so the next event may have any position.
    after_meter = np.append(False, valid[:-1, ev.INSTRUMENT] == ev.METER_CHANGE)
    reversals = (advance == 0) & (np.diff(position, prepend=0) < 0) & ~after_meter
    decoded = note_errors(tokenizer.decode(valid)) if len(valid) else SyntaxErrors()
    return dataclasses.replace(
        decoded, tokens=events.size, invalid=int(wrong.sum()), reversals=int(reversals.sum())
    )


def _invalid(tokenizer: NoteEvents, events: np.ndarray) -> np.ndarray:
    """Marks the tokens that are illegal at their position, bool [N, A]."""
    kind, sizes = events[:, ev.INSTRUMENT], tokenizer.vocab_sizes
    known_kind = (kind >= ev.REST) & (kind < sizes[ev.INSTRUMENT])
    is_note = known_kind & NoteEvents.is_note(events)
    right = np.empty(events.shape, bool)
    right[:, ev.ONSET] = (events[:, ev.ONSET] >= ev.FIRST) & (events[:, ev.ONSET] < sizes[ev.ONSET])
    right[:, ev.INSTRUMENT] = known_kind
    right[:, ev.PITCH] = known_kind & tokenizer.pitch_fits(np.where(known_kind, kind, ev.REST), events[:, ev.PITCH])
    for attribute in (ev.DURATION, ev.VELOCITY):
        value = events[:, attribute]
        right[:, attribute] = np.where(is_note, (value >= ev.FIRST) & (value < sizes[attribute]), value == ev.NONE)
    return ~right


def note_errors(piece: Piece) -> SyntaxErrors:
    """The errors that notes can have: duplicates and unplayable notes."""
    notes = piece.notes
    drum = notes["program"] == DRUMS
    low, high = (np.where(drum, keys, others) for keys, others in zip(DRUM_KEYS, PITCHED_KEYS, strict=True))
    unplayable = (notes["pitch"] < low) | (notes["pitch"] > high)
    distinct = len(np.unique(notes[["onset", "program", "track", "pitch"]]))
    return SyntaxErrors(notes=len(notes), duplicates=len(notes) - distinct, unplayable=int(unplayable.sum()))
