"""Every event is foretold once, behind what came before it, and bits are those of the training loss."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.evaluation.likelihood import bits, windows
from sage_jax.models.transformer import Transformer
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.training.step import count_losses
from tests.models.small import parameters, tiny_config
from tests.music.midi_files import random_piece
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()
CONFIG = tiny_config()


@given(st.lists(pieces(), min_size=1, max_size=2), st.integers(8, 64))
def test_windows_foretell_every_event_once(found, context):
    encoded = [TOKENIZER.encode(TOKENIZER.quantize(piece)) for piece in found]
    told = [[] for _ in encoded]
    for window in windows(TOKENIZER, encoded, context):
        assert len(window.events) <= context and window.events[0, ev.ONSET] == ev.BOS
        assert window.first >= 1
        told[window.piece].append(window.events[window.first :])
    for events, parts in zip(encoded, told, strict=True):
        joined = np.concatenate(parts)
        # All but BOS; only where a window's head says what its first events said can one be taken for given.
        assert len(events) - 1 - 2 * len(parts) <= len(joined) <= len(events) - 1
        assert joined[-1, ev.ONSET] == ev.EOS
        notes = joined[NoteEvents.is_note(joined)]
        assert np.array_equal(notes[:, ev.PITCH:], events[NoteEvents.is_note(events)][:, ev.PITCH:])


def test_what_is_foretold_stands_behind_half_a_context():
    events = TOKENIZER.encode(TOKENIZER.quantize(random_piece(0, 300)))
    context = 64
    for window in list(windows(TOKENIZER, [events], context))[1:]:
        assert window.first >= (context - 3) // 2
        assert len(window.events) - window.first >= (context - 3) // 4 or window.events[-1, ev.ONSET] == ev.EOS


def test_bits_of_a_piece_that_fits_are_those_of_the_training_loss():
    piece = TOKENIZER.quantize(random_piece(1, 20))
    events = TOKENIZER.encode(piece)
    params = parameters(CONFIG)
    found = bits(CONFIG, params, TOKENIZER, [events], context=64, batch_size=2)
    padded = np.zeros((1, 66, 5), np.int32)
    padded[0, : len(events)] = events
    logits = Transformer(CONFIG).apply({"params": params}, jnp.asarray(padded[:, :-1]))
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
