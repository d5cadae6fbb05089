"""What is wrong with events as a model wrote them, and with notes as another system's file has them."""

import dataclasses
import operator

import numpy as np

from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.representation import Representation

DRUM_KEYS = (27, 87)  # what General MIDI level 2 has a sound for
PITCHED_KEYS = (12, 119)  # C0 to B8: eight octaves and more, beyond any orchestra's instrument but the organ


@dataclasses.dataclass(frozen=True)
class Faults:
    """Counts that add up over pieces.

    tokens, notes: how many there were. invalid: tokens that mean nothing where they stand. reversals: events before the one
    that they follow. duplicates: notes that begin with an equal one of the same instrument and pitch. unplayable: notes no
    instrument plays, of pitches under 12 or over 119, and drums that General MIDI has no sound for.
    """

    tokens: int = 0
    notes: int = 0
    invalid: int = 0
    reversals: int = 0
    duplicates: int = 0
    unplayable: int = 0

    def __add__(self, other: "Faults") -> "Faults":
        return Faults(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __sub__(self, other: "Faults") -> "Faults":
        return Faults(*map(operator.sub, dataclasses.astuple(self), dataclasses.astuple(other)))


def faults_of_steps(representation: Representation, steps: np.ndarray) -> Faults:
    """The faults of `steps` [N, A]: counted token by token in NoteEvents, and elsewhere in the notes that they tell.

    Raises ValueError for steps of another representation that it can't decode, which its grammar never draws.
    """
    if isinstance(representation, NoteEvents):
        return faults_of_events(representation, steps)
    told = int((steps[:, 0] > ev.EOS).sum())
    return dataclasses.replace(faults_of_notes(representation.decode(steps)), tokens=told * steps.shape[1])


def faults_of_events(tokenizer: NoteEvents, events: np.ndarray) -> Faults:
    """The faults of `events` [N, A], whoever wrote them and whether or not `tokenizer` could decode them.

    BOS, EOS and PAD events count nothing, and nothing is read behind EOS. Sampled under the grammar, events have no invalid
    token, no reversal and no duplicate.
    """
    events = np.asarray(events, np.int64)
    stop = np.flatnonzero(events[:, ev.ONSET] == ev.EOS)
    events = events[: stop[0]] if len(stop) else events
    events = events[~(events <= ev.EOS).all(axis=1)]
    wrong = _invalid(tokenizer, events)
    sound = events[~wrong.any(axis=1)]
    advance, position = np.divmod(sound[:, ev.ONSET] - ev.FIRST, tokenizer.max_position)
    # A meter begins a bar where it stands, so that what follows may be anywhere in it.
    after_meter = np.append(False, sound[:-1, ev.INSTRUMENT] == ev.METER_CHANGE)
    reversals = (advance == 0) & (np.diff(position, prepend=0) < 0) & ~after_meter
    decoded = faults_of_notes(tokenizer.decode(sound)) if len(sound) else Faults()
    return dataclasses.replace(
        decoded, tokens=events.size, invalid=int(wrong.sum()), reversals=int(reversals.sum())
    )


def _invalid(tokenizer: NoteEvents, events: np.ndarray) -> np.ndarray:
    """bool [N, A]: the tokens that mean nothing where they stand."""
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


def faults_of_notes(piece: Piece) -> Faults:
    """The faults that notes can have; a MIDI file has no tokens, and no time that goes back."""
    notes = piece.notes
    drum = notes["program"] == DRUMS
    low, high = (np.where(drum, keys, others) for keys, others in zip(DRUM_KEYS, PITCHED_KEYS, strict=True))
    unplayable = (notes["pitch"] < low) | (notes["pitch"] > high)
    distinct = len(np.unique(notes[["onset", "program", "pitch"]]))
    return Faults(notes=len(notes), duplicates=len(notes) - distinct, unplayable=int(unplayable.sum()))
