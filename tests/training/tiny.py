"""The config of a tiny run, random events and a random corpus."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from configs.sage import get_config
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.note_events import BOS, EOS, FIRST, NoteEvents

NUM_EVENTS = 8


def tiny_config(**sections) -> ConfigDict:
    """A smaller configs/sage.py:debug; `sections` override it, as in train=dict(steps=4)."""
    config = get_config("debug")
    config.update(
        data=dict(context_events=NUM_EVENTS),
        model=dict(embed_dim=16, num_layers=1, head_dim=2, mlp_dim=16),
        train=dict(batch_size=4, steps=4, eval_every=2, eval_batches=1, checkpoint_every=2, log_every=1),
    )
    config.update(sections)
    return config


def random_events(
    rows: int, seed: int = 0, context_events: int = NUM_EVENTS, tokenizer: NoteEvents | None = None
) -> np.ndarray:
    """int32 [rows, context_events + 1, A]: BOS, random notes and rests, then EOS and padding."""
    rng = np.random.default_rng(seed)
    sizes = (tokenizer or NoteEvents()).vocab_sizes
    events = np.stack([rng.integers(FIRST, size, (rows, context_events + 1)) for size in sizes], axis=-1).astype(np.int32)
    events[:, 0] = BOS
    for row, length in enumerate(rng.integers(3, context_events + 1, rows)):
        events[row, length] = EOS
        events[row, length + 1 :] = 0
    return events


def write_corpus(folder: pathlib.Path) -> None:
    """Writes a dozen MIDI files of random pieces with drums."""
    rng = np.random.default_rng(0)
    for number in range(12):
        notes = zip(
            np.sort(rng.integers(0, 384, 60)).tolist(),
            rng.choice([0, 33, DRUMS], 60).tolist(),
            rng.integers(40, 80, 60).tolist(),
            rng.integers(1, 24, 60).tolist(),
            rng.integers(1, 128, 60).tolist(),
            strict=True,
        )
        save_midi(Piece.from_notes(notes), folder / f"{number}.mid")
