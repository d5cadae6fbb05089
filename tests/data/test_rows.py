"""Packed rows: short pieces in one row, each whole and once, the same for every reader."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.corpus.shards import TokenShards
from sage_jax.data.pipeline import make_dataset
from sage_jax.data.rows import PackingStats, pack
from sage_jax.tokenizers.note_events import BOS, ONSET, NoteEvents

TOKENIZER = NoteEvents()


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 50))
def test_pack_puts_each_item_in_one_row_and_fills_rows(lengths, capacity):
    rows = pack(lengths, capacity)
    assert sorted(itertools.chain.from_iterable(rows)) == list(range(len(lengths)))
    filled = [sum(lengths[item] for item in row) for row in rows]
    assert all(total <= capacity or len(row) == 1 for total, row in zip(filled, rows, strict=True))
    # No two rows fit in one, so more than half of each row but one is used.
    assert all(one + two > capacity for one, two in itertools.combinations(filled, 2))


def rows_of(shards, batches, **settings):
    settings = dict(context_events=2 * int(TokenShards(shards, "train", TOKENIZER).lengths.max()), batch_size=2) | settings
    dataset = make_dataset(shards, "train", TOKENIZER, **settings)
    return [row for batch in itertools.islice(dataset, batches) for row in batch["events"]]


def pieces_in(row: np.ndarray) -> list[bytes]:
    """Each piece of a row as bytes, without padding."""
    row = row[: int((row[:, ONSET] != 0).sum())]
    return [part.tobytes() for part in np.split(row, np.flatnonzero(row[:, ONSET] == BOS)[1:])]


def test_packed_rows_hold_whole_pieces_each_once_an_epoch(shards):
    source = TokenShards(shards, "train", TOKENIZER)
    whole = sorted(np.asarray(events, np.int32).tobytes() for events in source)
    tally, loose = PackingStats(), PackingStats()
    context_events = 2 * int(source.lengths.max())
    rows = len(pack(source.lengths, context_events))
    assert rows < len(whole)
    read = rows_of(shards, rows, batch_size=1, pack=True, tally=tally, seed=3)
    assert sorted(piece for row in read for piece in pieces_in(row)) == whole
    rows_of(shards, rows, batch_size=1, tally=loose)
    assert tally.cut == loose.cut == 0 and tally.steps / tally.capacity > 1.5 * loose.steps / loose.capacity


def test_two_readers_of_packed_batches_read_the_rows_of_one(shards):
    settings = dict(batch_size=4, transpose=(-5, 6), pack=True, seed=1)
    whole = rows_of(shards, 3, **settings)
    shared = [rows_of(shards, 3, share=(number, 2), **settings) for number in range(2)]
    together = [row for pair in zip(*shared, strict=True) for row in pair]
    assert all(np.array_equal(one, two) for one, two in zip(whole, together, strict=True))
