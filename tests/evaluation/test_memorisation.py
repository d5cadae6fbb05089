"""The longest shared run: equal to a search by hand, whatever the key, and never across pieces."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.evaluation.memorisation import longest_shared_runs
from sage_jax.music.notes import DRUMS, Piece
from tests.evaluation.fixed import transposed

steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, DRUMS]), st.integers(40, 43)), max_size=25)


def piece_of(rows) -> Piece:
    tick, notes = 0, {}
    for delta, program, pitch in rows:
        tick += delta
        notes[tick, program, pitch] = (tick, program, pitch, 6, 64)
    return Piece.from_notes(list(notes.values()))


def by_hand(training: list[Piece], piece: Piece) -> int:
    """Every pair of places, one after the other."""
    def moves(piece: Piece) -> list[tuple]:
        found, last = [], None
        for place, (onset, program, pitch, _, _) in enumerate(piece.notes.tolist()):
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
def test_as_found_by_hand(training, pieces):
    training, pieces = [piece_of(rows) for rows in training], [piece_of(rows) for rows in pieces]
    assert longest_shared_runs(training, pieces).tolist() == [by_hand(training, piece) for piece in pieces]


def test_a_transposed_copy_is_a_copy_and_a_long_one_counts_as_256():
    rng = np.random.default_rng(0)
    rows = [(6 * n, [0, 33, DRUMS][n % 3], int(rng.integers(40, 80)), 6, 64) for n in range(400)]
    piece = Piece.from_notes(rows)
    part = dataclasses.replace(piece, notes=piece.notes[100:150])
    strange = Piece.from_notes([(int(tick), 7, int(pitch), 6, 64) for tick, pitch in zip(range(0, 300, 7), rng.integers(0, 127, 43), strict=False)])
    assert longest_shared_runs([piece], [transposed(part, 5), transposed(piece, -3), strange, Piece.from_notes([])]).tolist() == [50, 256, 0, 0]


def test_in_parts_as_at_once(monkeypatch):
    rng = np.random.default_rng(1)
    training = [piece_of([(1, 0, int(pitch)) for pitch in rng.integers(40, 44, 30)]) for _ in range(6)]
    pieces = [piece_of([(1, 0, int(pitch)) for pitch in rng.integers(40, 44, 20)]) for _ in range(4)]
    whole = longest_shared_runs(training, pieces)
    monkeypatch.setattr("sage_jax.evaluation.memorisation.PART", 45)
    assert whole.tolist() == longest_shared_runs(training, pieces).tolist() and whole.min() > 2


def test_runs_do_not_cross_from_one_piece_into_the_next():
    rows = [(12 * n, 0, pitch, 6, 64) for n, pitch in enumerate((60, 64, 67, 72, 71, 65))]
    first, second = Piece.from_notes(rows[:3]), Piece.from_notes(rows[3:])
    assert longest_shared_runs([first, second], [Piece.from_notes(rows)]).tolist() == [3]
