"""Bits are those of the training loss, whatever a piece is told in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.evaluation.likelihood import bits
from sage_jax.models.transformer import Transformer
from sage_jax.music.events import NoteEvents
from sage_jax.music.representation import RepresentationConfig
from sage_jax.training.step import count_losses
from tests.models.small import parameters, tiny_config
from tests.music.midi_files import random_piece

TOKENIZER = NoteEvents()
CONFIG = tiny_config()


def test_bits_of_a_piece_that_fits_are_those_of_the_training_loss():
    piece = TOKENIZER.quantize(random_piece(1, 20))
    events = TOKENIZER.encode(piece)
    params = parameters(CONFIG)
    found = bits(CONFIG, params, TOKENIZER, [events], context=64, batch_size=2)
    padded = np.zeros((1, 66, 5), np.int32)
    padded[0, : len(events)] = events
    logits = jax.jit(Transformer(CONFIG).apply)({"params": params}, jnp.asarray(padded[:, :-1]))
    expected = count_losses(logits, jnp.asarray(padded))
    # The loss takes a crop's meter and tempo for given; the likelihood of a piece does not.
    head = found.bits - np.asarray(expected.nll) / np.log(2)
    assert head.sum() == pytest.approx(found.opening[0], rel=1e-4) and 0 < head.sum() < 200
    assert found.notes[0] == len(piece.notes) == expected.notes
    assert found.seconds[0] == pytest.approx(piece.seconds(piece.end))


def test_batches_do_not_matter():
    encoded = [TOKENIZER.encode(TOKENIZER.quantize(random_piece(seed, 90))) for seed in range(3)]
    together = bits(CONFIG, parameters(CONFIG), TOKENIZER, encoded, context=32, batch_size=4)
    seen = []
    alone = bits(CONFIG, parameters(CONFIG), TOKENIZER, encoded[1:2], context=32, batch_size=4, progress=lambda *at: seen.append(at))
    assert np.allclose(together.bits[1], alone.bits[0], rtol=1e-5)
    assert seen[-1][0] == seen[-1][1] > 4


@pytest.mark.parametrize("name", ["remi", "mmt"])
def test_other_representations_count_every_token_and_note(name):
    """A model that knows nothing: the logarithm of the vocabulary's size for each token, in however many windows."""
    representation = RepresentationConfig(name).make(TOKENIZER)
    config = tiny_config(vocab_sizes=representation.vocab_sizes, sharing="mqa")
    params = jax.tree.map(jnp.zeros_like, parameters(config))
    told = representation.quantize(TOKENIZER.quantize(random_piece(0, 120)))
    steps = representation.encode(told)
    found = bits(config, params, representation, [steps], context=64, batch_size=2)
    assert found.notes[0] == len(told.notes)
    np.testing.assert_allclose(found.bits[0], np.log2(representation.vocab_sizes) * (len(steps) - 1), rtol=1e-3)
