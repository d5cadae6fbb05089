"""How much of what a model writes it has by heart: the longest run of notes that also stands in the training set.

Notes are compared in order of time, each by how long after the one before it begins, by its instrument, and by the interval from the
last pitched note (drums: by their key), so that a transposed copy is a copy. Human music that the training set does not hold
shares runs with it too, short ones and common ones: a model's runs mean something only beside those.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

PART = 1_000_000  # notes of the training set that are looked through at once
LONGEST = 255  # notes between which runs are told apart; a longer run counts as one of 256


def longest_shared_runs(training: Sequence[Piece], pieces: Sequence[Piece]) -> np.ndarray:
    """For each of `pieces` the notes of its longest run that a training piece has too, 0 to 256 [P].

    By a suffix array over all of them and a part of the training set at a time, made by prefix doubling (Manber and Myers
    1993): the time is that of a few sorts of all notes, the memory that of a part. All are to be on one grid.
    """
    found = np.zeros(len(pieces), np.int64)
    mine = [_steps(piece) for piece in pieces]
    for part in _parts(training):
        found = np.maximum(found, _longest_runs([_steps(piece) for piece in part], mine))
    return np.where(found > 0, found + 1, 0)  # notes are one more than the steps between them


def _parts(training: Sequence[Piece]) -> Iterator[list[Piece]]:
    """`training` in parts of about PART notes."""
    part, size = [], 0
    for piece in training:
        part.append(piece)
        size += len(piece.notes)
        if size >= PART:
            yield part
            part, size = [], 0
    yield part


def _longest_runs(training: list[np.ndarray], pieces: list[np.ndarray]) -> np.ndarray:
    """For each of `pieces` the length of its longest run that `training` has too, in steps."""
    steps = [*training, *pieces]
    _, tokens = np.unique(np.concatenate([*steps, np.zeros(0, np.int64)]), return_inverse=True)
    owner = np.repeat(np.arange(len(steps), dtype=np.int32), [len(each) for each in steps])
    ranks = _doubled_ranks(tokens, owner)
    runs = np.zeros(len(steps), np.int64)
    order = np.argsort(ranks[-1])
    for there in (order, order[::-1]):  # of each suffix, the nearest of the training set before it, then behind it
        mine = owner[there] >= len(training)
        nearest = np.maximum.accumulate(np.where(mine, -1, np.arange(len(there))))
        rows = np.flatnonzero(mine & (nearest >= 0))
        np.maximum.at(runs, owner[there[rows]], _common(ranks, owner, there[rows], there[nearest[rows]]))
    return runs[len(training) :]


def _steps(piece: Piece) -> np.ndarray:
    """One number for each note but the first: how it follows the one before it [N - 1]."""
    notes = piece.notes
    if len(notes) < 2:
        return np.zeros(0, np.int64)
    drum, pitch = notes["program"] == DRUMS, notes["pitch"].astype(np.int64)
    last = np.maximum.accumulate(np.where(drum, -1, np.arange(len(notes))))[:-1]  # the last pitched note before each
    interval = np.where(last >= 0, pitch[1:] - pitch[np.maximum(last, 0)] + 128, 256)
    value = np.where(drum[1:], pitch[1:], interval)
    return (np.diff(notes["onset"].astype(np.int64)) * (DRUMS + 1) + notes["program"][1:]) * 512 + value


def _doubled_ranks(tokens: np.ndarray, owner: np.ndarray) -> list[np.ndarray]:
    """ranks[k], int32 [T]: the order of the runs of 2^k tokens that begin at each place, the same for equal runs.

    A run that its piece is too short for is equal to no other.
    """
    T = len(tokens)
    ranks = [tokens.astype(np.int32)]
    for k in range(LONGEST.bit_length()):
        half = 1 << k
        pair = ranks[-1].astype(np.int64) * (2 * T) + T + np.arange(T)
        inside = np.flatnonzero(owner[half:] == owner[: max(T - half, 0)])
        pair[inside] += ranks[-1][inside + half] - (T + inside)
        ranks.append(np.unique(pair, return_inverse=True)[1].astype(np.int32))
    return ranks


def _common(ranks: list[np.ndarray], owner: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many tokens the suffixes at `one` and at `other` begin with alike, at most LONGEST."""
    last = len(owner) - 1
    shared = np.zeros(len(one), np.int64)
    for k in reversed(range(len(ranks) - 1)):
        a, b = np.minimum(one + shared, last), np.minimum(other + shared, last)
        inside = (owner[a] == owner[one]) & (owner[b] == owner[other]) & (one + shared <= last) & (other + shared <= last)
        shared += (inside & (ranks[k][a] == ranks[k][b])).astype(np.int64) << k
    return shared
