"""Event steps of the delay pattern, in which five events are begun at once, under the same grammar as all others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sage_jax.decoding.grammar import Grammar, GrammarState, Limits
from sage_jax.music import events as ev


def draw_step(
    grammar: Grammar,
    state: GrammarState,
    begun: jax.Array,
    limits: Limits,
    choose: Callable[[int, jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Draws one more attribute of each event begun, the oldest first, and the onset of a new one.

    state: behind the last event that is complete. begun: int32 [B, A - 1, A], the events behind it, of which the last has its
    onset alone. choose: draws one of those allowed, given (attribute, bool [B, V_a], the token [B] that stands there, which is
    to stay if it is a prompt's). Returns the tokens drawn, int32 [B, A], by attribute; and the events [B, A, A], of which the
    first is complete now.
    """
    A = ev.NUM_ATTRIBUTES
    events = [*jnp.moveaxis(begun, 1, 0), jnp.zeros_like(begun[:, 0])]
    drawn = []
    for place, attribute in enumerate(reversed(range(A))):
        event = events[place]
        known = [event[:, a] for a in range(attribute)]
        allowed = grammar.allowed(state, known, limits)
        if attribute == ev.PITCH:
            allowed &= _leaves_room(grammar, known, events[place + 1][:, ev.ONSET], limits)
        token = choose(attribute, allowed, event[:, attribute])
        # An event that ends the piece has EOS throughout, and behind it stands nothing.
        if attribute > ev.ONSET:
            token = jnp.where(known[0] <= ev.EOS, known[0], token)
        else:
            last = events[place - 1][:, ev.ONSET]
            token = jnp.where((last == ev.EOS) | (last == ev.PAD), ev.PAD, token)
        events[place] = event = event.at[:, attribute].set(token)
        drawn.insert(0, token)
        if attribute == ev.INSTRUMENT:
            event = event.at[:, ev.PITCH].set(_least_bound(grammar, state, event))
        state = grammar.advance(state, event)
    return jnp.stack(drawn, axis=1), jnp.stack(events, axis=1)


def _least_bound(grammar: Grammar, state: GrammarState, event: jax.Array) -> jax.Array:
    """The pitch id [B] that leaves the most to the next event: the lowest one, or the meter of the longest bar."""
    onset, instrument = event[:, ev.ONSET], event[:, ev.INSTRUMENT]
    longest = grammar.tokenizer.first_meter + int(grammar.tokenizer.meter_ticks.argmax())
    lowest = grammar.pitches(state, onset, instrument).argmax(axis=-1)
    return jnp.where(instrument == ev.METER_CHANGE, longest, lowest)


def _leaves_room(grammar: Grammar, known: list[jax.Array], following: jax.Array, limits: Limits) -> jax.Array:
    """[B, V] pitch ids of an event behind which the onset `following` [B], drawn already, may stand."""
    onset, instrument = known
    ids = jnp.arange(grammar.vocab_sizes[ev.PITCH])[None]
    bars, position = (part[:, None] for part in jnp.divmod(following - ev.FIRST, grammar.tokenizer.max_position))
    is_meter = (instrument == ev.METER_CHANGE)[:, None]
    stands = jnp.where(is_meter, 0, (onset[:, None] - ev.FIRST) % grammar.tokenizer.max_position)
    later = (jnp.arange(grammar.vocab_sizes[ev.INSTRUMENT])[None] > instrument[:, None]) & grammar.playable(limits)[None]
    _, high = grammar.pitch_range(instrument)
    same_onset = (bars == 0) & (position == stands)
    room = ~same_onset | later.any(axis=-1, keepdims=True) | (ids + 1 < high[:, None])
    long_enough = ~is_meter | (jnp.asarray(grammar.meter_ticks)[None] > position)
    return (following < ev.FIRST)[:, None] | (room & long_enough)
