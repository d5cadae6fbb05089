"""The corpora that the project knows by name, and the split that each piece belongs to by its musical content."""

import bisect
import hashlib
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.scores import write_scores

SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
SPLITS = ("train", "valid", "test")
SHARES = (0.90, 0.95)  # where valid and test begin, of all hashes
LEAST = 0.04  # of the hashes, what valid and test get at least
EMBEDDED = pathlib.Path(__file__).parents[2] / "third_party" / "midi"


def list_corpus(name: str) -> list[tuple[str, str]]:
    """(name within the corpus, absolute path) of every file, in the order of the names.

    `name` is 'embedded', 'music21' or 'folder:PATH'. Raises UserError for another one, and for a corpus that isn't there.
    """
    kind, _, argument = name.partition(":")
    if kind not in CORPORA or bool(argument) != (kind == "folder"):
        raise UserError(f"data.corpus is {name!r}; choose embedded, music21 or folder:PATH")
    folder = CORPORA[kind](argument)
    files = sorted((os.path.relpath(path, folder).replace(os.sep, "/"), path) for path in _walk(folder))
    if not files:
        raise UserError(f"data.corpus: there is no {', '.join(SUFFIXES)} file in {folder} or below; name another folder")
    return files


def _embedded(_: str) -> str:
    if not EMBEDDED.is_dir():
        raise UserError(f"data.corpus: {EMBEDDED} is missing; run from a checkout (pip install -e .), or use folder:PATH")
    return str(EMBEDDED)


def _folder(path: str) -> str:
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        raise UserError(f"data.corpus: {folder} is not a folder; give folder:PATH with the path of one")
    return folder


CORPORA = {"embedded": _embedded, "music21": lambda _: str(write_scores()), "folder": _folder}


def _walk(folder: str) -> Iterator[str]:
    """MIDI files in `folder` and below. Links are followed, but no folder is entered twice, so that loops end."""
    unreadable: list[OSError] = []
    entered = {os.path.realpath(folder)}
    for root, subfolders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        for subfolder in sorted(subfolders):
            real = os.path.realpath(os.path.join(root, subfolder))
            if real in entered:
                subfolders.remove(subfolder)
            entered.add(real)
        subfolders.sort()
        yield from (os.path.join(root, file) for file in files if file.lower().endswith(SUFFIXES))
    yield from (error.filename for error in unreadable)  # what can't be listed is dropped by name, not in silence


def content_hash(piece: Piece) -> str:
    """A hash that copies of a piece share, in another key, at another tempo, on another grid or for other instruments.

    It sees how often each pitch occurs above the lowest one (without pitched notes: each drum), so it depends neither
    on time nor on the order of notes that one grid tells apart and another one does not.
    """
    drums = piece.notes["program"] == DRUMS
    pitches = piece.notes["pitch"] if drums.all() else piece.notes["pitch"][~drums]
    lowest = 0 if drums.all() else pitches.min()
    counts = np.bincount(pitches - lowest, minlength=128)
    text = f"{'drums' if drums.all() else 'pitches'} {' '.join(map(str, counts.tolist()))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def assign_splits(hashes: Collection[str]) -> dict[str, str]:
    """The split of each content hash: 90/5/5 by its value, so that it's the same everywhere.

    Where chance leaves valid or test less than `LEAST` of the hashes, or nothing, they get those nearest to them: with
    three hashes or more no split is empty; two are train and valid, and one is train.
    """
    groups = sorted(set(hashes))
    values = [int(group, 16) / 16 ** len(group) for group in groups]
    count = len(groups)
    if count < 3:
        return dict(zip(groups, SPLITS, strict=False))
    least = max(1, round(LEAST * count))
    test = min(max(bisect.bisect(values, SHARES[1]), 1 + least), count - least)
    valid = min(max(bisect.bisect(values, SHARES[0]), 1), test - least)
    return {group: SPLITS[(index >= valid) + (index >= test)] for index, group in enumerate(groups)}


def find_strays(splits: Sequence[str], groups: Sequence[int]) -> dict[int, int]:
    """The pieces to leave out, so that no group is in two splits: the number of each -> that of one of its group that stays.

    splits, groups: of each piece. Of a group that several splits have only what is in the earliest of them stays, so train
    loses nothing, and the split of what stays is that of its own content hash.
    """
    ranks = [SPLITS.index(split) for split in splits]
    stays: dict[int, int] = {}  # by group, its first piece in its earliest split
    for piece, group in enumerate(groups):
        if group not in stays or ranks[piece] < ranks[stays[group]]:
            stays[group] = piece
    return {piece: stays[group] for piece, group in enumerate(groups) if ranks[piece] > ranks[stays[group]]}
