"""What a row may generate: limits in time, programs, length, and whether it may end the piece."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from sage_jax import struct
from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS

FAR = np.iinfo(np.int32).max  # a bar or tick that no row reaches


@struct.dataclass
class Constraints(struct.Struct):
    """Limits on the generated events of each row. Traced: changing one compiles nothing.

    first_bar, stop_bar: int32 [B], events are in bars [first_bar, stop_bar), counted from the first bar in the cache.
    first_tick, stop_tick: int32 [B], and in ticks [first_tick, stop_tick), counted from the start of that bar.
    allow_eos: bool [B], whether EOS may be generated. programs: bool [B, 129 T], the tracks that may play: T of each MIDI
    program, drums last. T is the tokenizer's tracks_per_program.
    pitches: int32 [B, 129, 2], the lowest and the highest MIDI pitch of each program. allow_changes: bool [B], whether changes
    of tempo and meter may be generated. begin_before: int32 [B], the first event from first_tick on is before this tick; it
    holds while the last event is before first_tick. The grammar of NoteEvents alone has these three.
    """

    first_bar: jax.Array
    stop_bar: jax.Array
    first_tick: jax.Array
    stop_tick: jax.Array
    allow_eos: jax.Array
    programs: jax.Array
    pitches: jax.Array
    allow_changes: jax.Array
    begin_before: jax.Array


@dataclasses.dataclass(frozen=True)
class Limits:
    """The constraints of one row, on the host. Raises UserError naming the field.

    Fields as in `Constraints`, with None for no limit. programs: MIDI programs, 128 for drums, each with all its tracks, or
    pairs of a program and a track; None for all. pitches: (lowest, highest) by program, for programs that have a limit.
    """

    first_bar: int = 0
    stop_bar: int | None = None
    first_tick: int = 0
    stop_tick: int | None = None
    allow_eos: bool = True
    programs: Sequence[int | tuple[int, int]] | None = None
    pitches: Mapping[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    allow_changes: bool = True
    begin_before: int | None = None

    def __post_init__(self):
        for unit in ("bar", "tick"):
            first, stop = getattr(self, f"first_{unit}"), getattr(self, f"stop_{unit}")
            if stop is not None and stop < first:
                raise UserError(f"stop_{unit} is {stop}, before first_{unit} = {first}; give a later one, or None for no limit")
        if self.begin_before is not None and self.begin_before <= self.first_tick:
            raise UserError(f"begin_before is {self.begin_before}; give a tick after first_tick = {self.first_tick}, or None")
        for program, (low, high) in self.pitches.items():
            if not 0 <= low <= high <= 127:
                raise UserError(f"pitches has {(low, high)} for program {program}; give MIDI pitches, the lowest one first")
        for program in (*(program for program, _ in self.tracks or ()), *self.pitches):
            if not 0 <= program <= DRUMS:
                raise UserError(f"programs has {program!r}; give General MIDI programs from 0 to 127, or 128 for drums")

    @property
    def tracks(self) -> list[tuple[int, int | None]] | None:
        """(program, track) of each of `programs`; track None for all tracks of the program. None for no limit."""
        if self.programs is None:
            return None
        return [each if isinstance(each, tuple) else (each, None) for each in self.programs]

    def constraints(self, tracks_per_program: int = 1) -> Constraints:
        """The same limits as numpy arrays of one row. Raises UserError for a track that the vocabulary lacks."""
        number = lambda value: struct.one_row(FAR if value is None else min(value, FAR), np.int32)
        playable = np.full((DRUMS + 1, tracks_per_program), self.programs is None)
        for program, track in self.tracks or ():
            if track is not None and not 0 <= track < tracks_per_program:
                raise UserError(f"programs has {(program, track)!r}; give tracks from 0 to {tracks_per_program - 1}")
            playable[program, slice(None) if track is None else track] = True
        pitches = np.tile([0, 127], (DRUMS + 1, 1))
        for program, low_high in self.pitches.items():
            pitches[program] = low_high
        return Constraints(
            first_bar=number(self.first_bar),
            stop_bar=number(self.stop_bar),
            first_tick=number(self.first_tick),
            stop_tick=number(self.stop_tick),
            allow_eos=struct.one_row(self.allow_eos, bool),
            programs=struct.one_row(playable.ravel(), bool),
            pitches=struct.one_row(pitches, np.int32),
            allow_changes=struct.one_row(self.allow_changes, bool),
            begin_before=number(self.begin_before),
        )
