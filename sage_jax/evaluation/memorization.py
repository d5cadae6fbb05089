"""Memorization: the longest note n-gram that a piece shares with the training set.

Notes are in order of time. Each is encoded by its time since the previous note, its instrument, and its interval to the last
pitched note; for drums, its key instead. A transposed copy is therefore a copy. Human music outside the training set shares
n-grams with it too, so compare a model's lengths with those of the references.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

CHUNK_NOTES = 1_000_000  # notes of the training set that are searched at once
MAX_STEPS = 255  # steps between notes that are compared; a longer n-gram counts as 256 notes


def longest_shared_ngrams(training: Sequence[Piece], pieces: Sequence[Piece]) -> np.ndarray:
    """The length in notes of the longest n-gram that each of `pieces` shares with a training piece, 0 to 256, [P].

    Builds a suffix array over the pieces and one chunk of the training set at a time, by prefix doubling (Manber and Myers
    1993). The time is that of a few sorts of all notes; the memory is proportional to a chunk. All pieces must have the same
    grid.
    """
    longest = np.zeros(len(pieces), np.int64)
    steps = [_steps(piece) for piece in pieces]
    for chunk in _chunks(training):
        longest = np.maximum(longest, _longest_in_chunk([_steps(piece) for piece in chunk], steps))
    return np.where(longest > 0, longest + 1, 0)  # n notes have n - 1 steps between them


def _chunks(training: Sequence[Piece]) -> Iterator[list[Piece]]:
    """`training` in chunks of about CHUNK_NOTES notes."""
    chunk, size = [], 0
    for piece in training:
        chunk.append(piece)
        size += len(piece.notes)
        if size >= CHUNK_NOTES:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _longest_in_chunk(training: list[np.ndarray], pieces: list[np.ndarray]) -> np.ndarray:
    """The length in steps of the longest n-gram that each of `pieces` shares with `training`, [P]."""
    steps = [*training, *pieces]
    _, tokens = np.unique(np.concatenate([*steps, np.zeros(0, np.int64)]), return_inverse=True)
    owner = np.repeat(np.arange(len(steps), dtype=np.int32), [len(each) for each in steps])
    ranks = _doubled_ranks(tokens, owner)
    longest = np.zeros(len(steps), np.int64)
    order = np.argsort(ranks[-1])
    # The longest match of a suffix is its nearest training suffix in sorted order, before or after it.
    for suffixes in (order, order[::-1]):
        queried = owner[suffixes] >= len(training)
        nearest = np.maximum.accumulate(np.where(queried, -1, np.arange(len(suffixes))))
        rows = np.flatnonzero(queried & (nearest >= 0))
        shared = _common_prefix(ranks, owner, suffixes[rows], suffixes[nearest[rows]])
        np.maximum.at(longest, owner[suffixes[rows]], shared)
    return longest[len(training) :]


def _steps(piece: Piece) -> np.ndarray:
    """One integer for each pair of successive notes, [N - 1]: time, instrument, and interval or drum key."""
    notes = piece.notes
    if len(notes) < 2:
        return np.zeros(0, np.int64)
    drum, pitch = notes["program"] == DRUMS, notes["pitch"].astype(np.int64)
    last = np.maximum.accumulate(np.where(drum, -1, np.arange(len(notes))))[:-1]  # the last pitched note before each
    interval = np.where(last >= 0, pitch[1:] - pitch[np.maximum(last, 0)] + 128, 256)
    value = np.where(drum[1:], pitch[1:], interval)
    return (np.diff(notes["onset"].astype(np.int64)) * (DRUMS + 1) + notes["program"][1:]) * 512 + value


def _doubled_ranks(tokens: np.ndarray, owner: np.ndarray) -> list[np.ndarray]:
    """ranks[k], int32 [T]: the sorted rank of the 2^k tokens from each position on; equal n-grams have equal ranks.

    An n-gram that would extend beyond its piece is equal to no other.
    """
    T = len(tokens)
    ranks = [tokens.astype(np.int32)]
    for k in range(MAX_STEPS.bit_length()):
        half = 1 << k
        pair = ranks[-1].astype(np.int64) * (2 * T) + T + np.arange(T)
        inside = np.flatnonzero(owner[half:] == owner[: max(T - half, 0)])
        pair[inside] += ranks[-1][inside + half] - (T + inside)
        ranks.append(np.unique(pair, return_inverse=True)[1].astype(np.int32))
    return ranks


def _common_prefix(ranks: list[np.ndarray], owner: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The length of the common prefix of the suffixes at `one` and at `other`, in tokens, at most MAX_STEPS."""
    last = len(owner) - 1
    shared = np.zeros(len(one), np.int64)
    for k in reversed(range(len(ranks) - 1)):
        a, b = np.minimum(one + shared, last), np.minimum(other + shared, last)
        inside = (owner[a] == owner[one]) & (owner[b] == owner[other]) & (one + shared <= last) & (other + shared <= last)
        shared += (inside & (ranks[k][a] == ranks[k][b])).astype(np.int64) << k
    return shared
