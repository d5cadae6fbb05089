"""The contract of `Tokenizer`, which all tokenizers keep."""

import pickle

import numpy as np
import pytest

from sage_jax.music.notes import Piece
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.config import from_dict
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import BOS, EOS, PAD, NoteEvents

TOKENIZERS = [NoteEvents(), RemiBpe(), RemiBpe(per_track=True), Mmt()]
PIECE = Piece.from_notes([(12 * n, (0, 33)[n % 2], 40 + n % 7, 12, 64) for n in range(64)])


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.fingerprint)
def test_all_tokenizers_keep_the_contract(tokenizer: Tokenizer):
    quantized = tokenizer.quantize(PIECE)
    steps = tokenizer.encode(quantized)
    attributes = len(tokenizer.attributes)
    assert steps.shape[1] == attributes == len(tokenizer.vocab_sizes) and (steps < tokenizer.vocab_sizes).all()
    assert (steps[0, 0], steps[-1, 0]) == (BOS, EOS) and (steps[:, 0] != PAD).all()
    padded = np.concatenate([steps, np.zeros((3, attributes), steps.dtype)])
    assert tokenizer.decode(steps) == tokenizer.decode(padded) == quantized
    assert tokenizer.num_notes(steps[None]).shape == (1, len(steps)) and tokenizer.num_notes(steps).sum() == 64
    assert tokenizer.head_length(steps) == tokenizer.head_length(steps[:0]) >= 1
    assert tokenizer.grid.ticks_per_quarter == 12
    assert {tokenizer, pickle.loads(pickle.dumps(tokenizer)), from_dict(tokenizer.to_dict())} == {tokenizer}


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.fingerprint)
def test_a_continuation_of_a_window_joins_the_piece(tokenizer: Tokenizer):
    """The steps after bar 8, encoded as a continuation of the window of bars 0 to 7, complete the piece."""
    whole = tokenizer.encode(tokenizer.quantize(PIECE))[:-1]
    prefix = tokenizer.encode(tokenizer.quantize(PIECE.slice_bars(0, 8)))[:-1]
    window, bar = tokenizer.window(prefix, len(prefix) * 3 // 4)
    continued = tokenizer.encode(tokenizer.quantize(PIECE.slice_bars(bar, 16)))[:-1]
    assert bar > 0 and np.array_equal(continued[: len(window)], window)
    assert np.array_equal(tokenizer.join(prefix, continued[len(window) :], bar), whole)
