"""Listing of corpora, content hashes and splits."""

import collections
import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.corpus.sources import list_corpus
from sage_jax.corpus.splits import MIN_SHARE, SPLITS, assign_splits, content_hash, cross_split_duplicates
from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece
from tests.music.pieces import pieces


def test_folder_is_listed_in_order(tmp_path):
    for name in ("b.mid", "a.MID", "sub/c.midi", "sub/deep/d.Kar", "notes.txt", "mid"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "e.mid").write_bytes(b"x")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)  # a loop
    (tmp_path / "linked").symlink_to(outside)
    (tmp_path / "linked again").symlink_to(outside)
    (tmp_path / "dangling.mid").symlink_to(tmp_path / "nowhere")
    files = list_corpus(f"folder:{tmp_path}")
    assert [name for name, _ in files] == ["a.MID", "b.mid", "dangling.mid", "linked/e.mid", "sub/c.midi", "sub/deep/d.Kar"]
    assert all(os.path.isabs(path) and path.endswith(name) for name, path in files)


def test_embedded_corpus_exists():
    files = list_corpus("embedded")
    assert len(files) == 73 and all(os.path.isfile(path) for _, path in files)


@pytest.mark.parametrize("name", ["", "lakh", "folder", "folder:", "embedded:x", "folder:/nowhere/at/all"])
def test_unknown_corpora_raise_one_line(name):
    with pytest.raises(UserError, match=r"^data\.corpus.*[^\n]$"):
        list_corpus(name)


def test_folder_without_midi_raises(tmp_path):
    with pytest.raises(UserError, match="no .mid"):
        list_corpus(f"folder:{tmp_path}")


@given(pieces(), st.integers(-12, 12), st.integers(2, 5), st.randoms())
def test_content_hash_is_invariant_to_key_time_and_instruments(piece, semitones, stretch, random):
    notes = piece.notes.copy()
    pitched = notes["program"] != DRUMS
    moved = notes["pitch"][pitched] + semitones
    if len(moved) and 0 <= moved.min() and moved.max() <= 127:
        notes["pitch"][pitched] = moved
    notes["onset"] = stretch * notes["onset"] + random.randrange(3)  # shifts onsets relative to the grid
    notes["program"][pitched] = (notes["program"][pitched] + 7) % 128
    notes["velocity"] = 1 + notes["velocity"] % 127
    copy = Piece(notes, np.array([(0, 77.0)], TEMPO), np.array([(0, 3, 4)], METER), stretch * piece.ticks_per_quarter)
    assert content_hash(copy) == content_hash(piece)


def test_different_pieces_have_different_hashes():
    tune = [(12 * index, 0, pitch, 12, 64) for index, pitch in enumerate((60, 62, 64, 60))]
    hashes = {
        content_hash(Piece.from_notes(notes))
        for notes in (tune, tune[:3], [*tune[:3], (36, 0, 61, 12, 64)], [(0, DRUMS, 60, 12, 64)], [(0, DRUMS, 61, 12, 64)])
    }
    assert len(hashes) == 5


def test_content_hash_is_the_same_on_every_machine():
    tune = Piece.from_notes([(0, 0, 60, 12, 64), (12, 0, 64, 12, 64), (12, DRUMS, 36, 12, 64)])
    assert content_hash(tune) == "99c028bafc1f4d04"


def _hashes(count: int) -> list[str]:
    return [hashlib.sha256(str(index).encode()).hexdigest()[:16] for index in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 10, 73, 1000])
def test_no_split_is_empty(count):
    splits = assign_splits(_hashes(count))
    sizes = collections.Counter(splits.values())
    assert len(splits) == count
    assert {split for split in SPLITS if sizes[split]} == set(SPLITS[: min(count, 3)])
    if count >= 3:
        assert min(sizes["valid"], sizes["test"]) >= max(1, round(MIN_SHARE * count)) and sizes["train"] >= count // 3


def test_splits_are_90_5_5_and_depend_only_on_the_hash():
    hashes = _hashes(4000)
    splits = assign_splits(hashes)
    sizes = collections.Counter(splits.values())
    assert 0.88 < sizes["train"] / 4000 < 0.92 and abs(sizes["valid"] - sizes["test"]) < 80
    assert assign_splits(hashes[::-1] * 2) == splits
    fewer = assign_splits(hashes[:2000])  # splits do not change when a corpus grows
    assert all(splits[each] == split for each, split in fewer.items())


def test_duplicate_groups_stay_in_their_earliest_split():
    splits = ["test", "train", "valid", "train", "test", "valid", "test"]
    assert cross_split_duplicates(splits, [0, 1, 0, 1, 4, 1, 6]) == {0: 2, 5: 1}
    assert cross_split_duplicates(splits, [0] * 7) == {0: 1, 2: 1, 4: 1, 5: 1, 6: 1}
    assert cross_split_duplicates(splits, range(7)) == {} == cross_split_duplicates([], [])
