"""The tracks of a piece: which of them play one program, and their names."""

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pretty_midi

DRUMS = 128  # program number of drum notes; General MIDI programs are 0..127
MOST_TRACKS = 2**16  # of one program


class Track(NamedTuple):
    """A track of a piece.

    program: DRUMS for drums. track: its number among the tracks of its program, from 0. name: of no meaning to a model.
    """

    program: int
    track: int
    name: str


def default_name(program: int, track: int = 0) -> str:
    """The General MIDI name of a program, with a number from the second track on: "Violin", "Violin 2"."""
    name = "Drums" if program == DRUMS else pretty_midi.program_to_instrument_name(program)
    return f"{name} {track + 1}" if track else name


def numbered(sources: Iterable[tuple[int, str]]) -> tuple[Track, ...]:
    """Tracks with these programs and names, numbered in order. An empty name becomes the default one."""
    counts = collections.Counter()
    tracks = []
    for program, name in sources:
        tracks.append(Track(program, counts[program], name or default_name(program, counts[program])))
        counts[program] += 1
    return tuple(tracks)


def tracks_with_notes(notes: np.ndarray) -> list[tuple[int, int]]:
    """(program, track) of the tracks that have any of `notes`, a NOTE array [N], in ascending order."""
    if not len(notes):
        return []
    numbers = int(notes["track"].max()) + 1
    key = notes["program"].astype(np.int64) * numbers + notes["track"]
    return [divmod(each, numbers) for each in np.flatnonzero(np.bincount(key)).tolist()]


def complete_tracks(notes: np.ndarray, tracks: Sequence[Track]) -> tuple[Track, ...]:
    """`tracks`; where there are none, those with any of `notes` (a NOTE array [N]), with default names.

    Raises ValueError for a track that occurs twice, and for notes of none of the tracks.
    """
    playing = tracks_with_notes(notes)
    if not tracks:
        return tuple(Track(*each, default_name(*each)) for each in playing)
    known = {track[:2] for track in tracks}
    if len(known) < len(tracks):
        raise ValueError("two of the piece's tracks have the same program and number")
    if unknown := sorted({*playing} - known):
        raise ValueError(f"no track of the piece has the notes of program {unknown[0][0]}, track {unknown[0][1]}")
    return tuple(Track(*track) for track in tracks)


def with_further_tracks(tracks: Sequence[Track], notes: np.ndarray) -> tuple[Track, ...]:
    """`tracks`, and then those that `notes` (a NOTE array [N]) have beyond them, with default names."""
    known = {track[:2] for track in tracks}
    return (*tracks, *(Track(*each, default_name(*each)) for each in tracks_with_notes(notes) if each not in known))
