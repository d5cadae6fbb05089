"""Near-duplicates are found after changes that keep the melody; different pieces are not grouped."""

import subprocess
import sys

import numpy as np
import pytest

from sage_jax.corpus.near_duplicates import MAX_NEIGHBORS, NUM_BINS, duplicate_groups, minhash, near_duplicates
from sage_jax.music.notes import DRUMS, METER, NOTE, TEMPO, Piece
from tests.music.midi_files import random_piece


def tune(seed: int, length: int = 400) -> Piece:
    """A random melody over a random bass, with drums."""
    rng = np.random.default_rng(seed)
    notes = np.zeros(3 * length, NOTE)
    notes["onset"] = np.tile(np.cumsum(rng.choice([3, 6, 12], length)), 3)
    notes["program"] = np.repeat([73, 33, DRUMS], length)
    notes["pitch"] = np.concatenate([rng.integers(60, 80, length), rng.integers(36, 48, length), rng.integers(36, 50, length)])
    notes["duration"], notes["velocity"] = 3, rng.integers(1, 128, 3 * length)
    return Piece.from_notes(notes)


def altered(piece: Piece, **fields) -> Piece:
    notes = piece.notes.copy()
    for field, values in fields.items():
        notes[field] = values
    return Piece(notes, piece.tempos, piece.meters, piece.ticks_per_quarter)


def with_notes(piece: Piece, notes: np.ndarray) -> Piece:
    return Piece(np.concatenate([piece.notes, notes]), piece.tempos, piece.meters, piece.ticks_per_quarter)


PIECE = tune(0)
NOTES = PIECE.notes
FLUTE = NOTES[NOTES["program"] == 73]


def shifted(notes: np.ndarray, **steps: int) -> np.ndarray:
    notes = notes.copy()
    for field, step in steps.items():
        notes[field] += step
    return notes


@pytest.mark.parametrize("same", [
    pytest.param(PIECE.transpose(-7), id="another key"),
    pytest.param(altered(PIECE, velocity=64, duration=1), id="other velocities and durations"),
    pytest.param(Piece(NOTES, np.array([(0, 77.0)], TEMPO), np.array([(0, 3, 4)], METER)), id="another tempo and meter"),
    pytest.param(Piece(NOTES, PIECE.tempos, PIECE.meters, 24), id="another grid"),
    pytest.param(altered(PIECE, onset=2 * NOTES["onset"] + 5), id="twice as slow, later"),
    pytest.param(Piece.from_notes(NOTES[NOTES["program"] != DRUMS]), id="no drums"),
    pytest.param(altered(PIECE, program=np.where(NOTES["program"] == 73, 12, NOTES["program"])), id="another instrument"),
    pytest.param(with_notes(PIECE, shifted(FLUTE, pitch=12)), id="an octave above"),
    pytest.param(with_notes(PIECE, shifted(FLUTE, pitch=-24)), id="two octaves below"),
    pytest.param(with_notes(PIECE, shifted(FLUTE, pitch=-5, program=-30)), id="doubled by another instrument"),
])  # fmt: skip
def test_changes_that_keep_the_melody_keep_the_minhash(same):
    assert minhash(same) == minhash(PIECE) != ""


def wrong_notes(piece: Piece, every: int) -> Piece:
    pitch = piece.notes["pitch"].copy()
    pitch[::every] += 1
    return altered(piece, pitch=pitch)


@pytest.mark.parametrize("near", [
    pytest.param(wrong_notes(PIECE.transpose(3), 100), id="one wrong note in a hundred"),
    pytest.param(PIECE.slice_bars(0, 3 * PIECE.num_bars // 4), id="the last quarter cut off"),
    pytest.param(with_notes(PIECE, altered(tune(1), program=1).notes[::3]), id="one more part"),
    pytest.param(Piece.from_notes(np.concatenate([NOTES, shifted(NOTES, onset=PIECE.end)])), id="all of it repeated"),
])  # fmt: skip
def test_small_changes_keep_the_group(near):
    assert minhash(near) != minhash(PIECE)
    assert near_duplicates([minhash(piece) for piece in (tune(1), PIECE, tune(2), near)]).tolist() == [0, 1, 2, 1]


def test_different_pieces_are_in_different_groups():
    pieces = [tune(seed) for seed in range(20)] + [random_piece(seed, 800) for seed in range(20)]
    assert near_duplicates([minhash(piece) for piece in pieces]).tolist() == list(range(40))


def test_plain_pieces_have_an_empty_minhash_and_no_group():
    drums = Piece.from_notes(NOTES[NOTES["program"] == DRUMS])
    ostinato = Piece.from_notes([(12 * index, 0, (60, 64, 67)[index % 3], 12, 64) for index in range(400)])
    short, empty = Piece.from_notes(FLUTE[:13]), Piece.from_notes([])
    assert [minhash(piece) for piece in (drums, ostinato, short, empty)] == [""] * 4
    assert near_duplicates([""] * 4).tolist() == [0, 1, 2, 3] and near_duplicates([]).tolist() == []


def test_groups_are_connected_components():
    # Each piece differs a little more from the first one, so the ends are connected only through the others.
    chain = [minhash(wrong_notes(PIECE, 60 - 5 * index)) for index in range(2 * MAX_NEIGHBORS)]
    groups = near_duplicates([minhash(tune(1)), *chain, minhash(tune(1))])
    assert groups.tolist() == [0, *[1] * len(chain), 0]
    assert duplicate_groups(groups) == [[0, len(chain) + 1], list(range(1, len(chain) + 1))]
    assert duplicate_groups(groups[:0]) == []


def test_minhash_is_the_same_on_every_machine():
    assert len(minhash(PIECE)) == 4 * 2 * NUM_BINS // 3
    melody = Piece.from_notes([(12 * index, 0, 40 + index * index % 31, 12, 64) for index in range(200)])
    assert minhash(melody)[:16] == "8/O8VeBLqa2yPHue"


@pytest.mark.process
def test_near_duplicates_do_not_import_jax():
    code = "import sys, sage_jax.corpus.near_duplicates; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
