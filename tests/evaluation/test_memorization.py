"""The longest shared n-gram equals a brute-force search, is invariant to transposition, and stays within a piece."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.evaluation.memorization import longest_shared_ngrams
from sage_jax.music.notes import DRUMS, Piece
from tests.evaluation.fixed import transposed

steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, DRUMS]), st.integers(40, 43)), max_size=25)


def piece_of(rows) -> Piece:
    tick, notes = 0, {}
    for delta, program, pitch in rows:
        tick += delta
        notes[tick, program, pitch] = (tick, program, pitch, 6, 64)
    return Piece.from_notes(list(notes.values()))


def brute_force(training: list[Piece], piece: Piece) -> int:
    """Brute force over all pairs of positions."""

    def moves(piece: Piece) -> list[tuple]:
        found, before, last = [], 0, None
        for place, (onset, program, pitch, *_) in enumerate(piece.notes.tolist()):
            value = pitch if program == DRUMS else None if last is None else pitch - last
            if place:
                found.append((onset - before, program, value))
            before, last = onset, last if program == DRUMS else pitch
        return found

    mine, best = moves(piece), 0
    for other in map(moves, training):
        for i in range(len(mine)):
            for j in range(len(other)):
                length = 0
                while i + length < len(mine) and j + length < len(other) and mine[i + length] == other[j + length]:
                    length += 1
                best = max(best, length)
    return best + 1 if best else 0


@settings(max_examples=60)
@given(st.lists(steps, min_size=1, max_size=4), st.lists(steps, min_size=1, max_size=4))
def test_equals_brute_force(training, pieces):
    training, pieces = [piece_of(rows) for rows in training], [piece_of(rows) for rows in pieces]
    assert longest_shared_ngrams(training, pieces).tolist() == [brute_force(training, piece) for piece in pieces]


def test_transposed_copies_count_and_lengths_saturate_at_256():
    rng = np.random.default_rng(0)
    rows = [(6 * n, [0, 33, DRUMS][n % 3], int(rng.integers(40, 80)), 6, 64) for n in range(400)]
    piece = Piece.from_notes(rows)
    part = dataclasses.replace(piece, notes=piece.notes[100:150])
    pitches = rng.integers(0, 127, 43).tolist()
    unrelated = Piece.from_notes([(7 * n, 7, pitch, 6, 64) for n, pitch in enumerate(pitches)])
    queries = [transposed(part, 5), transposed(piece, -3), unrelated, Piece.from_notes([])]
    assert longest_shared_ngrams([piece], queries).tolist() == [50, 256, 0, 0]


def test_chunks_give_the_same_result(monkeypatch):
    rng = np.random.default_rng(1)
    training = [piece_of([(1, 0, int(pitch)) for pitch in rng.integers(40, 44, 30)]) for _ in range(6)]
    pieces = [piece_of([(1, 0, int(pitch)) for pitch in rng.integers(40, 44, 20)]) for _ in range(4)]
    whole = longest_shared_ngrams(training, pieces)
    monkeypatch.setattr("sage_jax.evaluation.memorization.CHUNK_NOTES", 45)
    assert whole.tolist() == longest_shared_ngrams(training, pieces).tolist() and whole.min() > 2


def test_n_grams_do_not_cross_pieces():
    rows = [(12 * n, 0, pitch, 6, 64) for n, pitch in enumerate((60, 64, 67, 72, 71, 65))]
    first, second = Piece.from_notes(rows[:3]), Piece.from_notes(rows[3:])
    assert longest_shared_ngrams([first, second], [Piece.from_notes(rows)]).tolist() == [3]
