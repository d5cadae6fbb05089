"""The delay pattern under the grammar: events are well-formed, in order, and within the constraints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.decoding.delay import delayed_step
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.grammars.note_events import Constraints, Grammar
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from tests.decoding.test_generate import PROMPTS, WILD, assert_canonical, prompt
from tests.models.small import parameters, tiny_config

TOKENIZER = NoteEvents()
GRAMMAR = Grammar(TOKENIZER)


def random_delayed_events(programs, rows=64, steps=160, seed=0, meters=1.0) -> np.ndarray:
    """Events [B, N, A] from random logits after a head of BOS, meter and tempo; most have the onset of the event before.

    meters: added to the logit of a meter change.
    """
    head = TOKENIZER.encode(TOKENIZER.decode(PROMPTS[0][:3]))[:3]
    partial_events = np.zeros((rows, 4, 5), np.int32)
    partial_events[:, 1:] = head
    constraints = Constraints(jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32), jnp.bool_(False), jnp.asarray(programs))

    def step(carry, key):
        state, partial_events, number = carry

        def choose(attribute, allowed, current):
            noise = jax.random.gumbel(jax.random.fold_in(key, attribute), allowed.shape)
            if attribute == ev.ONSET:
                noise = noise.at[:, : ev.FIRST + 2 * TOKENIZER.max_position].add(1.5)
            if attribute == ev.INSTRUMENT:
                noise = noise.at[:, ev.METER_CHANGE].add(meters)
            if attribute == ev.PITCH:
                noise = noise + 0.1 * jnp.arange(allowed.shape[1])[None]  # mostly high pitches, which leave few successors
            return jnp.where(number + 4 - attribute < 0, current, jnp.where(allowed, noise, -jnp.inf).argmax(axis=-1))

        _, events = delayed_step(GRAMMAR, state, partial_events, constraints, choose)
        return (GRAMMAR.advance(state, events[:, 0]), events[:, 1:], number + 1), events[:, 0]

    keys = jax.random.split(jax.random.key(seed), steps)
    start = GRAMMAR.start(rows), jnp.asarray(partial_events), jnp.int32(-4)
    _, events = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(start, keys)
    return np.moveaxis(np.asarray(events), 0, 1)[:, 1:]


@pytest.mark.parametrize(
    ("programs", "meters"), [(slice(None), 1.0), ([128], 4.0), ([0, 128], 6.0)], ids=["all", "drums", "meters"]
)
def test_ten_thousand_random_events_are_canonical(programs, meters):
    playable = np.zeros(129, bool)
    playable[programs] = True
    for row in random_delayed_events(playable, meters=meters):
        assert_canonical(row)
        used = row[row[:, ev.INSTRUMENT] >= ev.FIRST_PROGRAM][:, ev.INSTRUMENT] - ev.FIRST_PROGRAM
        assert playable[used].all()


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_config(architecture="delay"), parameters(tiny_config(architecture="delay")), TOKENIZER)


def test_rows_are_canonical_and_do_not_depend_on_the_batch(generator):
    wild = generator.generate(PROMPTS, max_events=90, sampling=WILD, seed=5, stop_at_eos=False)
    for start, continuation in zip(PROMPTS, wild.continuations, strict=True):
        assert len(continuation) == 90
        assert_canonical(np.concatenate([start, continuation]))
    alone = generator.generate([prompt(2)], max_events=90, sampling=WILD, seed=5, stop_at_eos=False)
    assert np.array_equal(alone.continuations[0], wild.continuations[0])


def test_decoding_in_several_calls_gives_the_same_events(generator):
    constraints, sampling_params = generator.constraints(4, allow_eos=False), WILD.sampling_params
    one_call = generator.decode(generator.prefill(PROMPTS, 256), 10, sampling_params, constraints)
    state = generator.prefill(PROMPTS, 256)
    for events in (5, 6, 10):
        state = generator.decode(state, events, sampling_params, constraints)
        assert int(state.step) == events
    assert np.array_equal(state.events, one_call.events) and (state.events[:, :10] > 0).all()


def test_events_are_restricted_to_the_bars(generator):
    first_bars, stop_bars = np.array([3, 5, 2, 3]), np.array([5, 6, 4, 9])
    out = generator.generate(PROMPTS, max_events=200, sampling=WILD, first_bar=first_bars, stop_bar=stop_bars, seed=2)
    for start, first, stop, continuation in zip(PROMPTS, first_bars, stop_bars, out.continuations, strict=True):
        piece = TOKENIZER.decode(np.concatenate([start, continuation]))
        new = piece.notes[piece.notes["onset"] >= TOKENIZER.decode(start).notes["onset"].max() + 1]
        bars = piece.bars.locate(new["onset"])[0]
        assert (bars >= first).all() and (bars < stop).all()
    assert out.finished.all()
