"""Assigns pieces to splits by a hash of their musical content: 90/5/5, the same on every machine."""

import bisect
import hashlib
from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

SPLITS = ("train", "valid", "test")
SHARES = (0.90, 0.95)  # where valid and test begin, as fractions of the hash range
MIN_SHARE = 0.04  # minimum share of the hashes for valid and for test
Item = TypeVar("Item")


def content_hash(piece: Piece) -> str:
    """A hash (16 hexadecimal digits) that is equal for versions of a piece in another key, tempo, grid or instrumentation.

    It depends only on the counts of each pitch relative to the lowest pitch (for pieces with only drums, of each drum). So it
    is independent of time and of note order, which the grid may change.
    """
    drums = piece.notes["program"] == DRUMS
    pitches = piece.notes["pitch"] if drums.all() else piece.notes["pitch"][~drums]
    lowest = 0 if drums.all() else pitches.min()
    counts = np.bincount(pitches - lowest, minlength=128)
    text = f"{'drums' if drums.all() else 'pitches'} {' '.join(map(str, counts.tolist()))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def assign_splits(hashes: Collection[str]) -> dict[str, str]:
    """The split of each content hash, 90/5/5 by the value of the hash.

    If valid or test would get less than `MIN_SHARE` of the hashes or none, it also gets the nearest hashes. With three or more
    hashes no split is empty. Two hashes are train and valid; a single hash is train.
    """
    groups = sorted(set(hashes))
    values = [int(group, 16) / 16 ** len(group) for group in groups]
    count = len(groups)
    if count < 3:
        return dict(zip(groups, SPLITS, strict=False))
    least = max(1, round(MIN_SHARE * count))
    test = min(max(bisect.bisect(values, SHARES[1]), 1 + least), count - least)
    valid = min(max(bisect.bisect(values, SHARES[0]), 1), test - least)
    return {group: SPLITS[(index >= valid) + (index >= test)] for index, group in enumerate(groups)}


def cross_split_duplicates(splits: Sequence[str], groups: Sequence[int]) -> dict[int, int]:
    """The pieces to remove so that no group is in two splits: index of the removed piece -> index of a kept piece of its group.

    splits, groups: the split and the near-duplicate group of each piece.
    A group keeps only its pieces in the earliest of its splits. So train loses no piece, and no piece changes its split.
    """
    ranks = [SPLITS.index(split) for split in splits]
    kept: dict[int, int] = {}  # group -> its first piece in its earliest split
    for piece, group in enumerate(groups):
        if group not in kept or ranks[piece] < ranks[kept[group]]:
            kept[group] = piece
    return {piece: kept[group] for piece, group in enumerate(groups) if ranks[piece] > ranks[kept[group]]}


def subsample_evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of `items`, evenly spaced."""
    return [items[index * len(items) // most] for index in range(most)] if len(items) > most else list(items)
