"""The batches of a run: a grain dataset of token shards with a JSON-ready, exact iterator state."""

import os
import sys

import grain

from sage_jax.corpus.contents import Contents
from sage_jax.corpus.shards import shards_with_pieces
from sage_jax.data.augmentation import NO_CHANGES, Augmentation, AugmentConfig
from sage_jax.data.crops import CropSource, RandomCrop, Retokenize, SequentialCrops
from sage_jax.data.rows import MapRow, PackedRows, PackingStats, PadRow, SingleCropRows
from sage_jax.errors import UserError
from sage_jax.tasks.config import PLAIN_ONLY, TasksConfig
from sage_jax.tasks.mixture import Mixture
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import HEAD, NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents

# Threads suffice since crops are cheap, and they end with the process.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def make_dataset(
    shards_dir: str | os.PathLike,
    split: str,
    tokenizer: NoteEvents,
    *,
    context_events: int,
    batch_size: int,
    seed: int = 0,
    transpose: tuple[int, int] = (0, 0),
    shuffle: bool = True,
    max_batches: int = 0,
    representation: Tokenizer | None = None,
    num_steps: int = 0,
    tally: PackingStats | None = None,
    share: tuple[int, int] = (0, 1),
    pack: bool = False,
    augment: AugmentConfig = NO_CHANGES,
    tasks: TasksConfig = PLAIN_ONLY,
    max_pieces: int = 0,
) -> grain.IterDataset:
    """Batches {'events': int32 [batch_size, context_events + 1, A]} of a split, padded with PAD events (zeros) at the end.

    shuffle: random crops, randomly transposed, in an endless stream; get_state and set_state of the iterator resume it exactly.
      Without it, the whole split once, in order and not transposed; the last batch is filled with padding.
    max_batches: without `shuffle`, the most batches, sampled evenly from the split; 0 for no limit.
    transpose: the lowest and the highest transposition in semitones.
    representation: the tokenizer that encodes the crops; None for that of the shards. Another one gives `num_steps` + 1 steps.
    num_steps: the capacity of a crop in steps of another tokenizer.
    tally: counts the steps, the steps that are cut off, and the capacity of the rows.
    share: (index, count) of this reader among the `count` readers of each batch. Reader i gets rows i, i + count, ... as a
      batch of its own; the rows of all readers together do not depend on `count`.
    pack: with `shuffle`, packs pieces shorter than a crop into one row.
    augment: with `shuffle`, further random changes of the crops.
    tasks: for RoleEvents, the share of each task. Batches then have 'floors' as well, int32 [batch_size, context_events + 1],
      see tasks/weave.py. Without `shuffle` the task of a crop follows from the crop.
    max_pieces: so many pieces of the split, spread evenly over it; 0 for all.
    Raises UserError for shards of another vocabulary, for a split without pieces and for a size out of range.
    """
    index, count = share
    if batch_size % count:
        raise UserError(f"train.batch_size is {batch_size}; give a multiple of the {count} hosts")
    if context_events < HEAD + 2:
        raise UserError(f"data.context_events is {context_events}; a crop needs at least {HEAD + 2}: its head, a note and EOS")
    shards = shards_with_pieces(shards_dir, split, tokenizer, max_pieces)
    target = tokenizer if representation is None else representation
    retokenizer = None if target == tokenizer else Retokenize(tokenizer, target)
    mixture = Mixture(tasks, tokenizer, target, context_events) if isinstance(target, RoleEvents) else None
    num_steps = num_steps if retokenizer else context_events
    if shuffle:
        regions = CropSource(shards, context_events)
        rows = PackedRows(regions, context_events) if pack else SingleCropRows(regions)
        # Endless in practice. grain's own endless repeat overflows with batches of one.
        epochs = sys.maxsize // (2 * len(rows))
        dataset = grain.MapDataset.source(rows).seed(seed).shuffle().repeat(epochs)
        ranges = Contents.of(shards, tokenizer).ranges if augment.keep_ranges else None
        changes = None if augment == NO_CHANGES else Augmentation(augment, tokenizer, ranges)
        dataset = dataset.random_map(MapRow(RandomCrop(tokenizer, context_events, transpose, changes)))
        if mixture:
            dataset = dataset.random_map(MapRow(mixture))
        elif retokenizer:
            dataset = dataset.map(MapRow(retokenizer))
    else:
        encode = mixture.fixed if mixture else retokenizer
        crops = SequentialCrops(shards, tokenizer, context_events, batch_size, max_batches, encode, num_steps)
        dataset = grain.MapDataset.source(crops)
    dataset = dataset.map(PadRow(num_steps, len(target.attributes), tally or PackingStats(), has_floors=mixture is not None))
    dataset = dataset[index::count] if count > 1 else dataset
    return dataset.batch(batch_size // count).to_iter_dataset(READ_OPTIONS)
