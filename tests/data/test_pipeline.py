"""Batches: exact resume, seeds, a whole split in order, and a process that exits."""

import itertools
import json
import subprocess
import sys

import grain
import numpy as np
import pytest

from sage_jax.corpus.preprocess import preprocess
from sage_jax.corpus.shards import TokenShards
from sage_jax.data import pipeline
from sage_jax.data.pipeline import make_dataset
from sage_jax.errors import UserError
from sage_jax.tokenizers.note_events import EOS, ONSET, PAD, NoteEvents
from tests.music.midi_files import write_pieces

TOKENIZER = NoteEvents()


def dataset(shards, split="train", **settings):
    settings = dict(context_events=32, batch_size=4, seed=0, transpose=(-5, 6)) | settings
    return make_dataset(shards, split, TOKENIZER, **settings)


def take(batches, count):
    return [batch["events"] for batch in itertools.islice(batches, count)]


def test_batches_are_endless_and_differ(shards):
    epoch = sum(-(-TokenShards(shards, "train", TOKENIZER).lengths // 32))
    batches = take(iter(dataset(shards)), epoch)  # four epochs
    assert all(batch.shape == (4, 33, 5) and batch.dtype == np.int32 for batch in batches)
    assert len({batch.tobytes() for batch in batches}) == len(batches)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_restored_iterator_resumes_exactly(shards, steps):
    first = iter(dataset(shards))
    take(first, steps)
    state = json.loads(json.dumps(first.get_state()))
    expected = take(first, 5)
    fresh, used = iter(dataset(shards)), iter(dataset(shards))
    take(used, 3)
    for iterator in (fresh, used, first):
        iterator.set_state(state)
        assert all(np.array_equal(got, want) for got, want in zip(take(iterator, 5), expected, strict=True))


@pytest.mark.parametrize("threads", [0, 1, 8])
@pytest.mark.parametrize("readers", [1, 2])
def test_resume_is_exact_with_other_threads_and_readers(shards, monkeypatch, threads, readers):
    """The iterator state does not depend on the number of threads or readers."""
    first = iter(dataset(shards))
    take(first, 3)
    state = json.loads(json.dumps(first.get_state()))
    monkeypatch.setattr(pipeline, "READ_OPTIONS", grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    shares = []
    for number in range(readers):
        iterator = iter(dataset(shards, share=(number, readers)))
        iterator.set_state(state)
        shares.append(take(iterator, 5))
    for expected, *rows in zip(take(first, 5), *shares, strict=True):
        assert np.array_equal(np.stack(rows, axis=1).reshape(expected.shape), expected)


def test_seeds_reproduce_and_differ(shards):
    one, again, other = (np.stack(take(iter(dataset(shards, seed=seed)), 4)) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_a_split_in_order_is_read_once_and_whole(shards):
    pieces = TokenShards(shards, "train", TOKENIZER)
    in_order = dataset(shards, shuffle=False, batch_size=7)
    batches = take(in_order, 10**6)
    assert all(batch.shape == (7, 33, 5) and (batch[:, -1] == PAD).all() for batch in batches)
    rows = np.concatenate(batches)
    notes = [TOKENIZER.decode(row).notes for row in rows if row[0, ONSET] != PAD]
    read, expected = np.concatenate(notes), np.concatenate([TOKENIZER.decode(piece).notes for piece in pieces])
    assert all(np.array_equal(read[field], expected[field]) for field in ("program", "pitch", "duration", "velocity"))
    assert (rows[..., ONSET] == EOS).sum() == len(pieces)
    empty = (rows == PAD).all((1, 2))
    assert empty.sum() < 7 and not empty[: len(rows) - empty.sum()].any()
    assert all(np.array_equal(got, want) for got, want in zip(take(in_order, 10**6), batches, strict=True))


def test_a_run_may_use_a_part_of_the_split(shards):
    pieces = TokenShards(shards, "train", TOKENIZER)
    part = TokenShards(shards, "train", TOKENIZER, most=3)
    assert part.names == [pieces.names[index * len(pieces) // 3] for index in range(3)]
    assert all(np.array_equal(part[index], pieces[pieces.names.index(name)]) for index, name in enumerate(part.names))
    assert TokenShards(shards, "train", TOKENIZER, most=10**6).names == pieces.names
    batches = dataset(shards, transpose=(0, 0), shuffle=False, max_pieces=3)
    assert sum(int((batch["events"][:, :, ONSET] == EOS).sum()) for batch in batches) == 3


def test_one_short_piece_fills_large_batches(shards):
    assert take(iter(dataset(shards, "valid", batch_size=64, context_events=1024)), 2)[1].shape == (64, 1025, 5)


def test_user_errors_for_unusable_shards(shards, tmp_path):
    with pytest.raises(UserError, match="no finished token shards; run launch.preprocess"):
        dataset(tmp_path)
    with pytest.raises(UserError, match="data.context_events is 4"):
        dataset(shards, context_events=4)
    midi = tmp_path / "midi"
    midi.mkdir()
    write_pieces(midi, 1)
    preprocess(f"folder:{midi}", tmp_path / "data", TOKENIZER, show_progress=False)
    with pytest.raises(UserError, match="no piece in its valid split"):
        dataset(tmp_path / "data", "valid")


@pytest.mark.process
def test_a_process_that_reads_batches_exits(shards):
    code = f"""
from sage_jax.data.pipeline import make_dataset
from sage_jax.tokenizers.note_events import NoteEvents
batches = iter(make_dataset({str(shards)!r}, "train", NoteEvents(), context_events=32, batch_size=4))
print(next(batches)["events"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(4, 33, 5)\n", "")
