"""Event steps of the delay pattern: attributes of several events are chosen in one step, under the grammar of NoteEvents."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sage_jax.decoding.constraints import Constraints
from sage_jax.decoding.grammars.note_events import Grammar, GrammarState
from sage_jax.tokenizers import note_events as ev


def delayed_step(
    grammar: Grammar,
    state: GrammarState,
    partial_events: jax.Array,
    given: jax.Array,
    constraints: Constraints,
    choose: Callable[[int, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """One delayed step: chooses the next attribute of each partial event, oldest first, and the onset of a new event.

    state: the grammar's state after the last complete event. partial_events: int32 [B, A, A], the events after it; the newest
    has no attribute yet. given: bool [B, A], which of these events are given: their tokens are kept. choose: the token [B] of
    an attribute among the allowed ids bool [B, V].

    Returns the tokens of the step, int32 [B, A], by attribute; and the events [B, A, A], of which the first is now complete.
    """
    A = ev.NUM_ATTRIBUTES
    events = [*jnp.moveaxis(partial_events, 1, 0)]
    tokens = []
    for index, attribute in enumerate(reversed(range(A))):
        event = events[index]
        known = [event[:, a] for a in range(attribute)]
        allowed = grammar.allowed(state, known, constraints)
        if attribute == ev.PITCH:
            allowed &= _allows_next_onset(grammar, known, events[index + 1][:, ev.ONSET], constraints)
        token = choose(attribute, allowed)
        # All attributes of the final event are EOS. Only PAD follows it.
        if attribute > ev.ONSET:
            token = jnp.where(known[0] <= ev.EOS, known[0], token)
        else:
            previous = events[index - 1][:, ev.ONSET]
            token = jnp.where((previous == ev.EOS) | (previous == ev.PAD), ev.PAD, token)
        token = jnp.where(given[:, index], event[:, attribute], token)
        events[index] = event = event.at[:, attribute].set(token)
        tokens.insert(0, token)
        if attribute == ev.INSTRUMENT:
            pitch = jnp.where(given[:, index], event[:, ev.PITCH], _least_restrictive_pitch(grammar, state, event, constraints))
            event = event.at[:, ev.PITCH].set(pitch)
        state = grammar.advance(state, event)
    return jnp.stack(tokens, axis=1), jnp.stack(events, axis=1)


def _least_restrictive_pitch(
    grammar: Grammar, state: GrammarState, event: jax.Array, constraints: Constraints
) -> jax.Array:
    """The pitch id [B] that allows the most next events: the lowest pitch, or the meter with the longest bar."""
    onset, instrument = event[:, ev.ONSET], event[:, ev.INSTRUMENT]
    longest = grammar.tokenizer.first_meter + int(grammar.tokenizer.meter_ticks.argmax())
    lowest = grammar.pitches(state, onset, instrument, constraints).argmax(axis=-1)
    return jnp.where(instrument == ev.METER_CHANGE, longest, lowest)


def _allows_next_onset(
    grammar: Grammar, known: list[jax.Array], next_onset: jax.Array, constraints: Constraints
) -> jax.Array:
    """[B, V] pitch ids of an event after which its successor can have the onset `next_onset` [B], which is already chosen.

    known: onset and instrument of the event, each [B].
    """
    onset, instrument = known
    ids = jnp.arange(grammar.vocab_sizes[ev.PITCH])[None]
    bars, position = (part[:, None] for part in jnp.divmod(next_onset - ev.FIRST, grammar.tokenizer.max_position))
    is_meter = (instrument == ev.METER_CHANGE)[:, None]
    event_position = jnp.where(is_meter, 0, (onset[:, None] - ev.FIRST) % grammar.tokenizer.max_position)
    later = (jnp.arange(grammar.vocab_sizes[ev.INSTRUMENT])[None] > instrument[:, None]) & grammar.playable(constraints)
    _, high = grammar.pitch_range(instrument, constraints)
    is_same_onset = (bars == 0) & (position == event_position)
    # At the same onset, a later instrument or a higher pitch must remain for the next event.
    has_successor = ~is_same_onset | later.any(axis=-1, keepdims=True) | (ids + 1 < high[:, None])
    fits_in_bar = ~is_meter | (jnp.asarray(grammar.meter_ticks)[None] > position)
    return (next_onset < ev.FIRST)[:, None] | (has_successor & fits_in_bar)
