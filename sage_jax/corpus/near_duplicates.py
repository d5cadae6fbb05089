"""Near-duplicate detection: MinHash signatures of melodic phrases, compared by locality-sensitive hashing.

Time and memory are linear in the number of pieces.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

PHRASE_INTERVALS = 12  # melodic intervals per phrase
NUM_BINS = 96  # values per signature, two bytes each
EDGES = np.array([index * 2**64 // NUM_BINS for index in range(NUM_BINS)], np.uint64)  # the smallest hash of each bin
MINHASH_LENGTH = 4 * 2 * NUM_BINS // 3  # base64 characters
BAND_SIZE = 3  # values per band; two pieces are compared if all values of a band agree
MIN_SIMILARITY = 0.3  # share of equal values: an estimate of the Jaccard index of two pieces' sets of phrases
MIN_PHRASES = 16  # pieces with fewer distinct phrases are too plain to be recognized
MAX_NEIGHBORS = 4  # preceding pieces with the same band that a piece is compared with


def minhash(piece: Piece) -> str:
    """The MinHash signature of a piece: 192 bytes in base64, or '' for pieces with only drums or with too few phrases.

    A phrase is 12 successive intervals, modulo the octave, of one instrument's melody: the highest pitch at each of its onsets.
    The signature depends only on the set of phrases.

    These changes leave it equal: key, tempo, meter, grid and start; velocities, durations and drums; instruments, if none are
    merged or split; notes added below the melody of their instrument; a melody doubled in octaves; a part doubled, at any
    interval, by an instrument that was silent.
    These changes have a small effect: a wrong note changes up to 13 phrases of its instrument, a cut removes its phrases, a
    repeat adds up to 12 phrases to each instrument, and a new part adds its own.
    These changes destroy it: a grid on which the notes of a chord begin apart (as in most performances), parts joined or split,
    and a new melody.
    """
    phrases = _phrases(piece.notes)
    if len(phrases) < MIN_PHRASES:
        return ""
    # One-permutation MinHash: the smallest hash in each of NUM_BINS ranges. An empty range borrows from the next filled one.
    first = np.searchsorted(phrases, EDGES)
    filled = np.flatnonzero(np.diff(np.append(first, len(phrases))))
    lender = filled[np.searchsorted(filled, np.arange(NUM_BINS)) % len(filled)]
    distance = (lender - np.arange(NUM_BINS)) % NUM_BINS
    values = (phrases[first[lender]] & np.uint64(0xFFFF)) + distance.astype(np.uint64) * np.uint64(40_503)
    return base64.b64encode(values.astype("<u2").tobytes()).decode()


def _phrases(notes: np.ndarray) -> np.ndarray:
    """The distinct phrase hashes of all instruments except drums, uint64, ascending."""
    onset, program, pitch = (notes[field].astype(np.int64) for field in ("onset", "program", "pitch"))
    # One sort key per note; the first key of an (instrument, onset) is the highest pitch.
    order = np.sort((program << 40 | onset << 7 | 127 - pitch)[program != DRUMS])
    top = order[np.append(True, np.diff(order >> 7) != 0)[: len(order)]]
    count = len(top) - PHRASE_INTERVALS
    if count < 1:
        return np.zeros(0, np.uint64)
    intervals = (-np.diff(top & 127) % 12).astype(np.uint64)
    # Numbers in base 12: of 2, 4 and 8 intervals, then of all 12.
    pairs = intervals[:-1] * np.uint64(12) + intervals[1:]
    fours = pairs[:-2] * np.uint64(12**2) + pairs[2:]
    eights = fours[:-4] * np.uint64(12**4) + fours[4:]
    phrases = eights[:count] * np.uint64(12**4) + fours[8:]
    hashes = np.sort(_splitmix64(phrases[top[:count] >> 40 == top[PHRASE_INTERVALS:] >> 40]))
    return hashes[np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]]


def _splitmix64(hashes: np.ndarray) -> np.ndarray:
    """A bijective 64-bit hash: the finalizer of SplitMix64 (Steele et al. 2014)."""
    hashes = hashes + np.uint64(0x9E3779B97F4A7C15)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def near_duplicates(minhashes: Sequence[Any] | np.ndarray) -> np.ndarray:
    """The group of each piece, int64 [P]: the index of the first piece of the group.

    minhashes: [P], signatures from `minhash`, str or bytes.
    Two pieces are near-duplicates if at least MIN_SIMILARITY of their values are equal. Groups are the connected components.
    Only pieces that agree in one of NUM_BINS / BAND_SIZE bands are compared. Two pieces with a Jaccard index of 0.3 do so with
    probability 0.58 (0.4: 0.88, 0.5: 0.986, 0.6: 0.9996). Each piece is compared with its MAX_NEIGHBORS nearest pieces in
    corpus order with the same band, so time is linear. Memory is about 300 bytes per piece.
    """
    found = np.array([index for index, text in enumerate(minhashes) if text], np.int64)
    groups = np.arange(len(minhashes))
    values = np.zeros((len(found), NUM_BINS), "<u2")
    with_phrases: list[int] = found.tolist()
    for row, index in enumerate(with_phrases):
        values[row] = np.frombuffer(base64.b64decode(minhashes[index]), "<u2")
    for band in range(0, NUM_BINS, BAND_SIZE):
        keys = values[:, band : band + BAND_SIZE].astype(np.uint64) @ np.array([1 << 32, 1 << 16, 1], np.uint64)
        order = np.argsort(keys, kind="stable")
        for back in range(1, MAX_NEIGHBORS + 1):
            same = np.flatnonzero(keys[order[back:]] == keys[order[:-back]])
            for low in range(0, len(same), 1 << 16):  # bounds memory
                one, other = order[same[low : low + (1 << 16)]], order[same[low : low + (1 << 16)] + back]
                similar = (values[one] == values[other]).sum(axis=1) >= MIN_SIMILARITY * NUM_BINS
                similar &= groups[found[one]] != groups[found[other]]  # most pairs agree in several bands
                for first, second in zip(found[one[similar]].tolist(), found[other[similar]].tolist(), strict=True):
                    _union(groups, first, second)
    return np.array([_find(groups, index) for index in range(len(groups))], np.int64)


def duplicate_groups(groups: np.ndarray) -> list[list[int]]:
    """The pieces of each group of two or more, ascending. groups: int [P], as from `near_duplicates`."""
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    return [group.tolist() for group in np.split(order, cuts) if len(group) > 1]


def _find(groups: np.ndarray, index: int) -> int:
    while groups[index] != index:
        groups[index] = groups[groups[index]]
        index = int(groups[index])
    return index


def _union(groups: np.ndarray, first: int, second: int) -> None:
    first, second = sorted((_find(groups, first), _find(groups, second)))
    groups[second] = first
