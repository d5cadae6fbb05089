"""The delay pattern under the grammar: events are well-formed, in order, and within the constraints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.delay import delayed_step
from sage_jax.decoding.grammars.note_events import Grammar
from sage_jax.errors import UserError
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from tests.decoding.small import PROMPTS, TOKENIZER, assert_canonical, constraints_of

FOUR_TRACKS = NoteEvents(tracks_per_program=4)


def random_delayed_events(programs, rows=64, steps=160, seed=0, meters=1.0, tokenizer=TOKENIZER) -> np.ndarray:
    """Events [B, N, A] from random logits after a head of BOS, meter and tempo; most have the onset of the event before.

    meters: added to the logit of a meter change.
    """
    head = TOKENIZER.encode(TOKENIZER.decode(PROMPTS[0][:3]))[:3]
    partial_events = np.zeros((rows, 4, 5), np.int32)
    partial_events[:, 1:] = head
    grammar, constraints = Grammar(tokenizer), constraints_of(rows, programs=programs, tracks=tokenizer.tracks_per_program)

    def step(carry, key):
        state, partial_events, number = carry

        def choose(attribute, allowed):
            noise = jax.random.gumbel(jax.random.fold_in(key, attribute), allowed.shape)
            if attribute == ev.ONSET:
                noise = noise.at[:, : ev.FIRST + 2 * TOKENIZER.max_position].add(1.5)
            if attribute == ev.INSTRUMENT:
                noise = noise.at[:, ev.METER_CHANGE].add(meters)
            if attribute == ev.PITCH:
                noise = noise + 0.1 * jnp.arange(allowed.shape[1])[None]  # mostly high pitches, which leave few successors
            return jnp.where(allowed, noise, -jnp.inf).argmax(axis=-1)

        window = jnp.pad(partial_events, ((0, 0), (0, 1), (0, 0)))
        is_given = jnp.broadcast_to(number + jnp.arange(5)[None] < 0, (rows, 5))
        _, events = delayed_step(grammar, state, window, is_given, constraints, choose)
        return (grammar.advance(state, events[:, 0]), events[:, 1:], number + 1), events[:, 0]

    keys = jax.random.split(jax.random.key(seed), steps)
    start = grammar.start(rows), jnp.asarray(partial_events), jnp.int32(-4)
    _, events = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(start, keys)
    return np.moveaxis(np.asarray(events), 0, 1)[:, 1:]


@pytest.mark.parametrize(
    ("programs", "meters"), [(None, 1.0), ([128], 4.0), ([0, 128], 6.0)], ids=["all", "drums", "meters"]
)
def test_ten_thousand_random_events_are_canonical(programs, meters):
    for row in random_delayed_events(programs, meters=meters):
        assert_canonical(row)
        used = TOKENIZER.program_of(row[TOKENIZER.is_note(row)][:, ev.INSTRUMENT])
        assert programs is None or set(used.tolist()) <= set(programs)


def test_random_events_of_four_tracks_are_canonical_and_of_the_tracks_that_may_play():
    """A program is all its tracks, a pair is one of them."""
    wanted, used = {(0, 1), (40, 0), (40, 3), *((128, track) for track in range(4))}, set()
    for row in random_delayed_events([(0, 1), (40, 3), 128, (40, 0)], rows=32, meters=4.0, tokenizer=FOUR_TRACKS):
        assert_canonical(row, FOUR_TRACKS)
        used |= set(FOUR_TRACKS.decode(row).notes[["program", "track"]].tolist())
    assert used == wanted


def test_a_track_that_the_vocabulary_lacks_is_refused():
    for track in (4, -1):
        with pytest.raises(UserError, match=rf"programs has \(40, {track}\); give tracks from 0 to 3"):
            Limits(programs=[(40, track)]).constraints(4)
