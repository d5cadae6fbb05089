"""Bits equal the training loss for every tokenizer, and do not depend on batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.evaluation.likelihood import bits
from sage_jax.models.transformer import Transformer
from sage_jax.tokenizers.config import RepresentationConfig
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training.step import cross_entropy
from tests.models.small import parameters, tiny_config
from tests.music.midi_files import random_piece

TOKENIZER = NoteEvents()
CONFIG = tiny_config()


def test_bits_of_a_short_piece_equal_the_training_loss():
    piece = TOKENIZER.quantize(random_piece(1, 20))
    events = TOKENIZER.encode(piece)
    params = parameters(CONFIG)
    found = bits(CONFIG, params, TOKENIZER, [events], context=64, batch_size=2)
    padded = np.zeros((1, 66, 5), np.int32)
    padded[0, : len(events)] = events
    logits = jax.jit(Transformer(CONFIG).apply)({"params": params}, jnp.asarray(padded[:, :-1]))
    expected = jax.jit(cross_entropy)(logits, jnp.asarray(padded))
    # The training loss excludes the first meter and tempo; the likelihood of a piece includes them.
    head = found.bits - np.asarray(expected.nll) / np.log(2)
    assert head.sum() == pytest.approx(found.opening[0], rel=1e-4) and 0 < head.sum() < 200
    assert found.notes[0] == len(piece.notes) == expected.notes
    assert found.seconds[0] == pytest.approx(piece.seconds(piece.end))


def test_bits_do_not_depend_on_the_batch():
    encoded = [TOKENIZER.encode(TOKENIZER.quantize(random_piece(seed, 90))) for seed in range(3)]
    together = bits(CONFIG, parameters(CONFIG), TOKENIZER, encoded, context=32, batch_size=4)
    seen = []
    count = lambda done, total: seen.append((done, total))
    alone = bits(CONFIG, parameters(CONFIG), TOKENIZER, encoded[1:2], context=32, batch_size=4, progress=count)
    assert np.allclose(together.bits[1], alone.bits[0], rtol=1e-5)
    assert seen[-1][0] == seen[-1][1] > 4


@pytest.mark.parametrize("name", ["remi", "mmt"])
def test_other_tokenizers_count_every_token_and_note(name):
    """A uniform model needs log2(vocabulary size) bits for each token, regardless of the number of windows."""
    tokenizer = RepresentationConfig(name).make(TOKENIZER)
    config = tiny_config(vocab_sizes=tokenizer.vocab_sizes, kv_sharing="mqa")
    params = jax.tree.map(jnp.zeros_like, parameters(config))
    piece = tokenizer.quantize(TOKENIZER.quantize(random_piece(0, 120)))
    steps = tokenizer.encode(piece)
    found = bits(config, params, tokenizer, [steps], context=64, batch_size=2)
    assert found.notes[0] == len(piece.notes)
    np.testing.assert_allclose(found.bits[0], np.log2(tokenizer.vocab_sizes) * (len(steps) - 1), rtol=1e-3)
