"""The delay pattern under the grammar: events begun five at a time are still well-formed, in order, and within the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.decoding.delayed import draw_step
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.grammar import Grammar, Limits
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from tests.decoding.test_generate import PROMPTS, WILD, assert_canonical, prompt
from tests.models.small import parameters, tiny_config

TOKENIZER = NoteEvents()
GRAMMAR = Grammar(TOKENIZER)


def drawn_at_random(programs, rows=64, steps=160, seed=0, meters=1.0) -> np.ndarray:
    """Events [B, N, A] behind a head of BOS, meter and tempo, of random logits alone; onsets mostly where the last one was.

    meters: the temperature of the instruments, under which changes of meter are more or less likely.
    """
    head = TOKENIZER.encode(TOKENIZER.decode(PROMPTS[0][:3]))[:3]
    begun = np.zeros((rows, 4, 5), np.int32)
    begun[:, 1:] = head
    limits = Limits(jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32), jnp.bool_(False), jnp.asarray(programs))

    def step(carry, key):
        state, begun, number = carry

        def choose(attribute, allowed, there):
            noise = jax.random.gumbel(jax.random.fold_in(key, attribute), allowed.shape)
            if attribute == ev.ONSET:
                noise = noise.at[:, : ev.FIRST + 2 * TOKENIZER.max_position].add(1.5)
            if attribute == ev.INSTRUMENT:
                noise = noise.at[:, ev.METER_CHANGE].add(meters)
            if attribute == ev.PITCH:
                noise = noise + 0.1 * jnp.arange(allowed.shape[1])[None]  # near the top, where there is least room
            return jnp.where(number + 4 - attribute < 0, there, jnp.where(allowed, noise, -jnp.inf).argmax(axis=-1))

        _, events = draw_step(GRAMMAR, state, begun, limits, choose)
        return (GRAMMAR.advance(state, events[:, 0]), events[:, 1:], number + 1), events[:, 0]

    keys = jax.random.split(jax.random.key(seed), steps)
    start = GRAMMAR.start(rows), jnp.asarray(begun), jnp.int32(-4)
    _, events = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(start, keys)
    return np.moveaxis(np.asarray(events), 0, 1)[:, 1:]


@pytest.mark.parametrize("programs, meters", [(slice(None), 1.0), ([128], 4.0), ([0, 128], 6.0)], ids=["all", "drums", "meters"])
def test_ten_thousand_random_events_are_canonical(programs, meters):
    playable = np.zeros(129, bool)
    playable[programs] = True
    for row in drawn_at_random(playable, meters=meters):
        assert_canonical(row)
        used = row[row[:, ev.INSTRUMENT] >= ev.FIRST_PROGRAM][:, ev.INSTRUMENT] - ev.FIRST_PROGRAM
        assert playable[used].all()


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_config(form="delay"), parameters(tiny_config(form="delay")), TOKENIZER)


def test_a_row_in_a_batch_is_the_row_alone_and_well_formed(generator):
    wild = generator.generate(PROMPTS, max_events=90, sampling=WILD, seed=5, stop_at_end=False)
    for start, continuation in zip(PROMPTS, wild.continuations, strict=True):
        assert len(continuation) == 90
        assert_canonical(np.concatenate([start, continuation]))
    alone = generator.generate([prompt(2)], max_events=90, sampling=WILD, seed=5, stop_at_end=False)
    assert np.array_equal(alone.continuations[0], wild.continuations[0])


def test_ten_events_are_five_and_five(generator):
    limits, knobs = generator.limits(4, may_end=False), WILD.knobs
    at_once = generator.advance(generator.start(PROMPTS, 256), 10, knobs, limits)
    state = generator.start(PROMPTS, 256)
    for events in (5, 6, 10):
        state = generator.advance(state, events, knobs, limits)
        assert int(state.step) == events
    assert np.array_equal(state.events, at_once.events) and (state.events[:, :10] > 0).all()


def test_it_keeps_to_its_bars_and_ends(generator):
    first_bars, stop_bars = np.array([3, 5, 2, 3]), np.array([5, 6, 4, 9])
    out = generator.generate(PROMPTS, max_events=200, sampling=WILD, first_bar=first_bars, stop_bar=stop_bars, seed=2)
    for start, first, stop, continuation in zip(PROMPTS, first_bars, stop_bars, out.continuations, strict=True):
        piece = TOKENIZER.decode(np.concatenate([start, continuation]))
        new = piece.notes[piece.notes["onset"] >= TOKENIZER.decode(start).notes["onset"].max() + 1]
        bars = piece.bars.locate(new["onset"])[0]
        assert (bars >= first).all() and (bars < stop).all()
    assert out.finished.all()
