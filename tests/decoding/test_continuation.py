"""Continuations: prompts, and the tracks of takes and sessions."""

import dataclasses

import numpy as np
import pytest

from sage_jax.decoding.continuation import continue_piece, first_bars
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.session import Session
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.music.tracks import Track
from tests.decoding.small import FLAT, WILD, engine_of


def test_first_bars_begin_with_the_first_note_and_are_long_enough():
    piece = Piece.from_notes([(48 * bar, 0, 60, 12, 65) for bar in range(3, 7)])
    assert first_bars(piece, 4, "song").notes["onset"].tolist() == [0, 48, 96, 144]
    empty = Piece.from_notes([])
    for source, bars, message in ((piece, 5, "4 bars of music"), (piece, 0, "at least 1"), (empty, 1, "no notes")):
        with pytest.raises(UserError, match=message):
            first_bars(source, bars, "song")


DUET = Piece.from_notes([(12 * n, 40, 60 + n, 12, 65, track) for n in range(8) for track in range(2)])


def test_takes_and_sessions_keep_the_tracks_of_a_program_apart():
    """A take has the names of its prompt. Notes of a track alone stay of that track."""
    engine = engine_of(tokenizer="tracks", **FLAT)
    names = Track(40, 0, "Violin I"), Track(40, 1, "Violin II")
    named = engine.tokenizer.quantize(dataclasses.replace(DUET, tracks=names))
    found = continue_piece(
        engine, named, prompt_bars=2, num_bars=20, max_events=30, num_samples=4, sampling=WILD, programs=[(40, 1), (40, 3)]
    )
    drawn = np.concatenate([take.notes[take.notes["onset"] >= found.prompt_end] for take in found.pieces])
    assert set(drawn["track"].tolist()) == {1, 3} and all(take.tracks[:2] == names for take in found.pieces)
    with Session(Scheduler(engine), sampling=WILD, programs=[(40, 2)]) as session:
        session.push([(0, 40, 60, 12, 65, 1), (0, 40, 60, 12, 65, 3)])
        list(session.draw(until_tick=48))
        session.push((48, 40, 60, 12, 65, 2))
        notes = session.piece.notes
    assert notes["track"][:2].tolist() == [1, 3] and notes["track"][-1] == 2 and set(notes["track"][2:].tolist()) == {2}
