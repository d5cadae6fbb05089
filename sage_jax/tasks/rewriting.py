"""Music of which a model rewrites some tracks or bars, while everything else stays as it is, note for note."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.instruments import describe, program_of
from sage_jax.music.midi import at_resolution
from sage_jax.music.notes import Piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.tracks import tracks_with_notes
from sage_jax.tasks.assignment import Assignment
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.leads import Lead
from sage_jax.tokenizers.role_events import RoleEvents

OwnTrack = tuple[int, int | None]  # program, and the number of one of its tracks from 0; None for all that the piece has
MAX_TICKS_PER_QUARTER = 32_767  # of a MIDI file


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """A piece as it was read, and what a model does in it.

    piece: as read, in ticks that both the file and the model can hold. assignment: on the model's grid. scale: ticks of `piece`
    for each of the model's.
    """

    piece: Piece
    assignment: Assignment
    scale: int

    @classmethod
    def plan(
        cls,
        piece: Piece,
        tokenizer: Tokenizer,
        *,
        own: Sequence[OwnTrack] | None,
        bars: tuple[int, int] | None,
        lead: Lead,
        loss: QuantizationStats | None = None,
    ) -> "Rewriting":
        """What `tokenizer`'s model does with `piece`, whose resolution is a multiple of its grid's.

        own: the tracks that the model plays; None for all of the piece. bars: the first and the last one, from 1; None for
        all. Raises UserError naming own, bars or lead.
        """
        if not isinstance(tokenizer, RoleEvents):
            raise UserError(
                "the model knows no given notes, so that it can't accompany or infill; take one that was trained with "
                "config.representation.name=roles (docs/tasks.md)"
            )
        if not len(piece.notes):
            raise UserError("the piece has no notes; give one with notes that stay")
        ticks = tokenizer.ticks_per_quarter
        scale = piece.ticks_per_quarter // ticks
        quantized = tokenizer.quantize(at_resolution(piece, ticks), loss)
        tracks = _own_tracks(own, tracks_with_notes(quantized.notes), tokenizer.tracks_per_program, is_new=not lead.span)
        first, last = bars if bars is not None else (1, piece.num_bars)
        if not 1 <= first <= last <= piece.num_bars:
            raise UserError(f"bars are {first} to {last}, and the piece has bars 1 to {piece.num_bars}; give some of these")
        start, stop = (int(_nearest(piece.bar_start(bar), scale)) for bar in (first - 1, last))
        assignment = Assignment(
            quantized,
            tokenizer,
            tracks,
            start,
            stop,
            lead,
        )
        return cls(piece, assignment, scale)

    @property
    def written(self) -> tuple[int, int]:
        """The ticks of `piece` between which the model's notes are."""
        return self.assignment.start * self.scale, self.assignment.stop * self.scale

    def finish(self, written: np.ndarray) -> Piece:
        """The piece with the model's notes `written`, NOTE [n] on the model's grid."""
        notes, tokenizer = self.piece.notes, self.assignment.tokenizer
        onset = _nearest(notes["onset"], self.scale)  # as the model sees it
        inside = (onset >= self.assignment.start) & (onset < self.assignment.stop)
        track = np.minimum(notes["track"], tokenizer.tracks_per_program - 1)
        stays = notes[~(inside & np.isin(tokenizer.instrument_of(notes["program"], track), self.assignment.instruments))]
        new = written.copy()
        new["onset"] *= self.scale
        new["duration"] *= self.scale
        return self.piece.with_notes(np.concatenate([stays, new]))


def parse_own(instruments: Iterable[int | str]) -> list[OwnTrack]:
    """The tracks of programs, names and "drums"; a number after a colon is that of one track, from 1: "40:2".

    Raises UserError for an unknown instrument and for an empty list.
    """
    found: list[OwnTrack] = []
    for each in instruments:
        name, colon, number = str(each).partition(":")
        if colon and not (number.strip().isdecimal() and int(number) > 0):
            raise UserError(f"own has {each!r}; after the colon give the number of a track from 1, such as 40:2")
        found.append((program_of(name), int(number) - 1 if colon else None))
    if not found:
        raise UserError("own is empty; give programs 0 to 127, their names, or drums")
    return found


def _own_tracks(
    own: Sequence[OwnTrack] | None, there: Sequence[tuple[int, int]], tracks_per_program: int, is_new: bool
) -> tuple[tuple[int, int], ...]:
    """(program, track) of each track that the model plays, ascending. there: those of the piece. is_new: may it lack them."""
    if own is None:
        return tuple(there)
    found: set[tuple[int, int]] = set()
    for program, track in own:
        named = f"{describe([program])}" + ("" if track is None else f", track {track + 1}")
        if track is not None and track >= tracks_per_program:
            raise UserError(f"own has {named}; the model keeps {tracks_per_program} of a program apart, give one of these")
        matching = [each for each in there if each[0] == program and track in (None, each[1])]
        if not matching and not is_new:
            programs = sorted({each for each, _ in there})
            raise UserError(f"own has {named}, which the piece lacks; it has {describe(programs)}")
        found.update(matching or [(program, track or 0)])
    return tuple(sorted(found))


def _nearest(ticks, scale: int):
    """`ticks` in units of `scale` ticks; halves round up, as in quantization."""
    return (2 * ticks + scale) // (2 * scale)


def common_resolution(ticks_per_quarter: int, tokenizer_ticks: int) -> int:
    """Ticks per quarter that hold those of a file and those of a grid exactly.

    Raises UserError where a MIDI file cannot have so many.
    """
    common = math.lcm(ticks_per_quarter, tokenizer_ticks)
    if common > MAX_TICKS_PER_QUARTER:
        raise UserError(
            f"the file has {ticks_per_quarter} ticks per quarter, which do not fit the model's {tokenizer_ticks}; save it with "
            "480 from a music program"
        )
    return common


def parse_bars(text: str) -> tuple[int, int]:
    """(first, last) of "5-8" or "5". Raises UserError for anything else."""
    first, _, last = text.partition("-")
    if not first.strip().isdecimal() or (last and not last.strip().isdecimal()) or text.strip().endswith("-"):
        raise UserError(f"bars is {text!r}; give the first and the last one, such as 5-8, or one bar")
    return int(first), int(last or first)


