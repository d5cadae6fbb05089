"""The batches that a run reads: grain over token shards, with an iterator state that is exact and fits into JSON."""

import os
import sys

import grain

from sage_jax.data.crops import Passages, RandomCrop, Regions, Retell
from sage_jax.data.rows import EachOf, Fill, OneByOne, Packed, Tally
from sage_jax.errors import UserError
from sage_jax.music.events import HEAD, NoteEvents
from sage_jax.music.representation import Representation
from sage_jax.music.shards import TokenShards

# Two threads ahead of the consumer; crops are cheap, and threads end with the process.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def make_dataset(
    shards_dir: str | os.PathLike,
    split: str,
    tokenizer: NoteEvents,
    *,
    num_events: int,
    batch_size: int,
    seed: int = 0,
    transpose: tuple[int, int] = (0, 0),
    shuffle: bool = True,
    max_batches: int = 0,
    representation: Representation | None = None,
    num_steps: int = 0,
    tally: Tally | None = None,
    share: tuple[int, int] = (0, 1),
    pack: bool = False,
) -> grain.IterDataset:
    """Batches {'events': int32 [batch_size, num_events + 1, A]} of a split, with PAD events (zeros) on the right.

    With `shuffle` they are random crops in random keys, without end; the iterator's get_state and set_state go on with
    exactly the same ones. Without it they are the whole split once, in order and in its own key, the last batch filled
    up with padding, or, where that is more than `max_batches` (0 for no limit), a part that is spread evenly over it.
    share: (number, count) of the readers that have a batch in common: of its rows each has every count-th, and a batch of
    that many less. So the rows of a batch are the same, however many read them.
    representation: if not the shards' own, crops are told in it, in `num_steps` + 1 steps; `tally` counts what that cuts off.
    pack: whether pieces shorter than a crop are put several in a row, where `shuffle` says that they are to be trained on.
    Raises UserError for shards of another vocabulary and for a split without pieces.
    """
    number, count = share
    if batch_size % count:
        raise UserError(f"train.batch_size is {batch_size}; give a multiple of the {count} hosts")
    if num_events < HEAD + 2:
        raise UserError(f"data.num_events is {num_events}; a crop needs {HEAD + 2} at least: its head, a note and EOS")
    shards = TokenShards(shards_dir, split, tokenizer)
    if not len(shards):
        raise UserError(f"{shards_dir} has no piece in its {split} split; add different pieces to the corpus")
    retell = None if representation in (None, tokenizer) else Retell(tokenizer, representation)
    num_steps = num_steps if retell else num_events
    if shuffle:
        regions = Regions(shards, num_events)
        rows = Packed(regions, num_events) if pack else OneByOne(regions)
        # Without end, for all that matters: grain's own number of rows without end is too large for batches of one.
        epochs = sys.maxsize // (2 * len(rows))
        dataset = grain.MapDataset.source(rows).seed(seed).shuffle().repeat(epochs)
        dataset = dataset.random_map(EachOf(RandomCrop(tokenizer, num_events, transpose)))
        dataset = dataset.map(EachOf(retell)) if retell else dataset
    else:
        passages = Passages(shards, tokenizer, num_events, batch_size, max_batches, retell, num_steps)
        dataset = grain.MapDataset.source(passages)
    attributes = len((representation if retell else tokenizer).attributes)
    dataset = dataset.map(Fill(num_steps, attributes, tally or Tally()))
    dataset = dataset[number::count] if count > 1 else dataset
    return dataset.batch(batch_size // count).to_iter_dataset(READ_OPTIONS)
