"""Near-duplicates: which pieces tell much of the same melody, from a sketch of each, in linear time and memory."""

import base64
from collections.abc import Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

STEPS = 12  # melodic steps in a phrase
BINS = 96  # values in a sketch, two bytes each
SKETCH_LENGTH = 4 * 2 * BINS // 3  # characters, in base64
ROWS = 3  # values that must agree for two pieces to be compared
ALIKE = 0.3  # share of values that near-duplicates agree in: the phrases both have, of those that either has
LEAST_PHRASES = 16  # with fewer different ones a piece is too plain to know it again
LOOK_BACK = 4  # pieces that one is compared with, among those with the same ROWS values


def sketch(piece: Piece) -> str:
    """192 bytes, as text, by which `near_duplicates` knows the piece again; '' for drums alone and for too plain pieces.

    A phrase is 12 successive steps, modulo the octave, of the highest pitch that one instrument begins at each onset.
    The sketch depends on which phrases occur, and on nothing else. So it survives, unchanged: another key, tempo, meter and
    grid, another beginning; other velocities, durations and drums; other instruments, as long as no two become one or one two;
    notes added below the highest one of their instrument, and that one doubled in octaves; a part doubled by an instrument that
    was silent, at any interval. It changes little where little changes: a wrong note costs its instrument up to 13 phrases, a
    cut those that are gone, a repeat adds up to 12 to each instrument, and one more part its own. It does not survive a
    grid on which notes of a chord no longer begin together (as in most performances), parts joined or split, or a new melody.
    """
    phrases = _phrases(piece.notes)
    if len(phrases) < LEAST_PHRASES:
        return ""
    # The least phrase, in the order of their hashes, of each of BINS ranges of hashes; an empty range borrows the next one's.
    edges = np.array([index * 2**64 // BINS for index in range(BINS)], np.uint64)
    first = np.searchsorted(phrases, edges)
    filled = np.flatnonzero(np.diff(np.append(first, len(phrases))))
    lender = filled[np.searchsorted(filled, np.arange(BINS)) % len(filled)]
    distance = (lender - np.arange(BINS)) % BINS
    values = (phrases[first[lender]] & np.uint64(0xFFFF)) + distance.astype(np.uint64) * np.uint64(40_503)
    return base64.b64encode(values.astype("<u2").tobytes()).decode()


def _phrases(notes: np.ndarray) -> np.ndarray:
    """The hashes (uint64, each once, ascending) of the phrases of all instruments but the drums."""
    onset, program, pitch = (notes[field].astype(np.int64) for field in ("onset", "program", "pitch"))
    # One number for each note, so that the first one of an instrument and an onset is the highest.
    order = np.sort((program << 40 | onset << 7 | 127 - pitch)[program != DRUMS])
    top = order[np.append(True, np.diff(order >> 7) != 0)[: len(order)]]
    count = len(top) - STEPS
    if count < 1:
        return np.zeros(0, np.uint64)
    steps = (-np.diff(top & 127) % 12).astype(np.uint64)
    hashes = np.zeros(count, np.uint64)
    for index in range(STEPS):
        hashes = hashes * np.uint64(12) + steps[index : index + count]
    return np.unique(_mix(hashes[top[:count] >> 40 == top[STEPS:] >> 40]))


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Spreads integers evenly over 64 bits, one to one (the finalizer of SplitMix64, Steele et al. 2014)."""
    hashes = hashes + np.uint64(0x9E3779B97F4A7C15)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def near_duplicates(sketches: Sequence[str | bytes]) -> np.ndarray:
    """A group for each piece [P]: the number of the first piece of its group, which is its own where nothing is alike.

    Pieces are alike where at least ALIKE of the values of their sketches agree, and a group is what that connects. Those are
    compared that agree in one of BINS / ROWS parts of the sketch, as two do with a probability of 0.58 where they share 0.3 of
    their phrases, 0.88 with 0.4, 0.986 with 0.5 and 0.9996 with 0.6. Of more than LOOK_BACK others with the same part one is
    compared with the nearest ones in order, so that time is linear; memory is about 300 bytes to a piece.
    """
    found = np.array([index for index, text in enumerate(sketches) if text], np.int64)
    groups = np.arange(len(sketches))
    values = np.zeros((len(found), BINS), "<u2")
    for row, index in enumerate(found.tolist()):
        values[row] = np.frombuffer(base64.b64decode(sketches[index]), "<u2")
    for part in range(0, BINS, ROWS):
        keys = values[:, part : part + ROWS].astype(np.uint64) @ np.array([1 << 32, 1 << 16, 1], np.uint64)
        order = np.argsort(keys, kind="stable")
        for back in range(1, LOOK_BACK + 1):
            same = np.flatnonzero(keys[order[back:]] == keys[order[:-back]])
            for low in range(0, len(same), 1 << 16):  # so that memory does not follow the number of pairs
                one, other = order[same[low : low + (1 << 16)]], order[same[low : low + (1 << 16)] + back]
                alike = (values[one] == values[other]).sum(axis=1) >= ALIKE * BINS
                alike &= groups[found[one]] != groups[found[other]]  # most are found more than once
                for first, second in zip(found[one[alike]].tolist(), found[other[alike]].tolist(), strict=True):
                    _join(groups, first, second)
    return np.array([_root(groups, index) for index in range(len(groups))], np.int64)


def members(groups: np.ndarray) -> list[list[int]]:
    """The pieces of every group of two or more, in order."""
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    return [group.tolist() for group in np.split(order, cuts) if len(group) > 1]


def _root(groups: np.ndarray, index: int) -> int:
    while groups[index] != index:
        groups[index] = groups[groups[index]]
        index = int(groups[index])
    return index


def _join(groups: np.ndarray, first: int, second: int) -> None:
    first, second = sorted((_root(groups, first), _root(groups, second)))
    groups[second] = first
