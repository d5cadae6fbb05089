"""What occurs in a split: the pitches of each instrument, and the meters."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sage_jax.music.instruments import describe, programs_in
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.note_events import (
    FIRST_DRUM,
    FIRST_PITCH,
    INSTRUMENT,
    METER_CHANGE,
    PITCH,
    NoteEvents,
)

PITCHES = 128
RARE = 0.001  # the share of an instrument's notes at each end of its range that does not count: files have mistakes


@dataclasses.dataclass(frozen=True)
class Contents:
    """pitches: int64 [129, 128], how often each program, drums last, plays each pitch. meters: those of the pieces, sorted."""

    pitches: np.ndarray
    meters: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, pieces: Iterable[np.ndarray], tokenizer: NoteEvents) -> "Contents":
        """The contents of pieces as events [N, 5] of `tokenizer`."""
        counts, meters = np.zeros((DRUMS + 1) * PITCHES, np.int64), set()
        for events in pieces:
            notes = events[tokenizer.is_note(events)].astype(np.int64)
            program = tokenizer.program_of(notes[:, INSTRUMENT])
            pitch = notes[:, PITCH] - np.where(program == DRUMS, FIRST_DRUM, FIRST_PITCH)
            counts += np.bincount(program * PITCHES + pitch, minlength=len(counts))
            meters |= set(events[events[:, INSTRUMENT] == METER_CHANGE, PITCH].tolist())
        return cls(counts.reshape(-1, PITCHES), tuple(sorted(tokenizer.meters[id - tokenizer.first_meter] for id in meters)))

    @property
    def ranges(self) -> np.ndarray:
        """(lowest, highest) pitch of each program, int [129, 2], without its `RARE` extremes; (0, 127) without any note."""
        below = np.cumsum(self.pitches, axis=1)
        total = below[:, -1:]
        lowest, highest = (below > RARE * total).argmax(axis=1), (below >= (1 - RARE) * total).argmax(axis=1)
        ranges = np.stack([lowest, highest], axis=1)
        ranges[total[:, 0] == 0] = 0, PITCHES - 1
        return ranges

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: 'instruments', program -> [lowest pitch, highest pitch, notes] of those that play, and 'meters'."""
        playing = np.flatnonzero(self.pitches.sum(axis=1)).tolist()
        instruments = {str(each): [*self.ranges[each].tolist(), int(self.pitches[each].sum())] for each in playing}
        return {"instruments": instruments, "meters": [list(meter) for meter in self.meters]}


def pitch_limits(contents: Mapping[str, Any], prompt: Piece) -> dict[int, tuple[int, int]]:
    """(lowest, highest) pitch by program, in a split with these contents (`Contents.to_dict`, or {}) or in `prompt`."""
    limits = {}
    for program, (low, high, _) in contents.get("instruments", {}).items():
        own = prompt.notes["pitch"][prompt.notes["program"] == int(program)].tolist()
        limits[int(program)] = min([low, *own]), max([high, *own])
    return limits


def unseen(contents: Mapping[str, Any], prompt: Piece) -> Iterator[str]:
    """A line for the instruments of `prompt` that a split with these contents lacks, and one for its meters."""
    if not contents:
        return
    if unknown := [program for program in programs_in(prompt) if str(program) not in contents["instruments"]]:
        yield f"instruments: the model never saw {describe(unknown)}"
    meters = prompt.meters[["numerator", "denominator"]].tolist()
    if unknown := [f"{n}/{d}" for n, d in dict.fromkeys(meters) if [n, d] not in contents["meters"]]:
        yield f"meters: the model never saw {', '.join(unknown)}"
