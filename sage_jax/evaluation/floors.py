"""Bits per piece of models that learn nothing or next to nothing, beside which a trained model's bits per note are read.

uniform   every token is uniform over the ids that the grammar allows at its place
unigram   the frequency of each attribute's ids in the training split
markov    an interpolated Markov chain over tokens, fitted to the training split, of the order and smoothing that suit it

They count the tokens that likelihood.py counts: every one after BOS, with meters, tempos, rests and the end of sequence.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.grammars.note_events import Grammar, GrammarState
from sage_jax.evaluation.markov import Tokens, best_chain, markov, unigram
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents

FLOORS = ("uniform", "unigram", "markov")
ROWS = 16  # pieces that the grammar reads side by side
CHUNK = 256  # events that it reads in one call


def floor_bits(tokenizer: NoteEvents, training: Sequence[np.ndarray], pieces: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The bits in all of each piece, float64 [P], by the name of the floor.

    training, pieces: events [N, A] of each piece, BOS first. Raises ValueError, naming the piece, for other arrays and for an
    event that the grammar forbids. Raises ValueError for a training split without tokens.
    """
    for name, group in (("training piece", training), ("piece", pieces)):
        for number, events in enumerate(group):
            _check(tokenizer, np.asarray(events), f"{name} {number}")
    seen, scored = Tokens.of(training), Tokens.of(pieces)
    if not len(seen.token):
        raise ValueError("the training split has no tokens; give at least one piece with an event after BOS")
    sizes = tokenizer.vocab_sizes
    choices = [count.ravel() for count in allowed_ids(tokenizer, pieces)]
    probabilities = {
        "uniform": 1 / np.concatenate([np.zeros(0), *choices]),
        "unigram": unigram(sizes, seen, scored),
        "markov": markov(sizes, seen, scored, *best_chain(sizes, training)),
    }
    piece = np.repeat(np.arange(len(pieces)), [len(count) for count in choices])
    return {name: np.bincount(piece, -np.log2(probabilities[name]), len(pieces)) for name in FLOORS}


def _check(tokenizer: NoteEvents, events: np.ndarray, name: str) -> None:
    """Raises ValueError, naming the piece, unless `events` are ids [N, A] of the vocabulary that begin with BOS."""
    if events.ndim != 2 or events.shape[1] != ev.NUM_ATTRIBUTES or not len(events):
        raise ValueError(f"{name} has the shape {events.shape}; give events [N, {ev.NUM_ATTRIBUTES}] with BOS first")
    if (events[0] != ev.BOS).any():
        raise ValueError(f"{name} begins with {events[0].tolist()}, not with BOS")
    wrong = np.flatnonzero(((events < 0) | (events >= tokenizer.vocab_sizes)).any(axis=1))
    if len(wrong):
        raise ValueError(f"event {wrong[0]} of {name} is {events[wrong[0]].tolist()}, which the vocabulary lacks")


def allowed_ids(tokenizer: NoteEvents, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """How many ids the grammar allows in the place of each token after BOS, int32 [N - 1, A] for each piece.

    Nothing is limited but the order of events: all programs may play, at any tick, and the piece may end. What follows the
    onset EOS in its event is given, so there is one id. Raises ValueError, naming piece and event, for a token that is not
    allowed.
    """
    read = _compiled_counts(tokenizer)
    found = [np.zeros((0, ev.NUM_ATTRIBUTES), np.int32)] * len(pieces)
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
    for start in range(0, len(order), ROWS):
        group = order[start : start + ROWS]
        length = -(-(len(pieces[group[-1]]) - 1) // CHUNK) * CHUNK
        rows = np.zeros((ROWS, length, ev.NUM_ATTRIBUTES), np.int32)
        for row, number in zip(rows, group, strict=False):
            row[: len(pieces[number]) - 1] = pieces[number][1:]
        state, counts = Grammar(tokenizer).start(ROWS), [np.zeros((0, ROWS, ev.NUM_ATTRIBUTES), np.int32)]
        for first in range(0, length, CHUNK):
            state, count = read(state, rows[:, first : first + CHUNK])
            counts.append(np.asarray(count))
        for row, number in enumerate(group):
            found[number] = np.concatenate(counts)[: len(pieces[number]) - 1, row]
            wrong = np.flatnonzero((found[number] == 0).any(axis=1))
            if len(wrong):
                event = pieces[number][wrong[0] + 1].tolist()
                raise ValueError(f"event {wrong[0] + 1} of piece {number} is {event}, which the grammar forbids there")
    return found


@functools.lru_cache(maxsize=4)
def _compiled_counts(tokenizer: NoteEvents) -> Callable:
    """A function of (state, events [ROWS, N, A]): the state after them, and the ids allowed at each token, int32 [N, ROWS, A].

    The number is 0 where the token is not among those allowed.
    """
    grammar = Grammar(tokenizer)
    no_limits = jax.tree.map(lambda leaf: np.repeat(leaf, ROWS, axis=0), Limits().constraints(tokenizer.tracks_per_program))

    def step(state: GrammarState, event: jax.Array) -> tuple[GrammarState, jax.Array]:
        tokens = list(event.T)
        counts = []
        for attribute, token in enumerate(tokens):
            allowed = grammar.allowed(state, tokens[:attribute], no_limits)
            fits = jnp.take_along_axis(allowed, token[:, None], axis=1)[:, 0]
            count = jnp.where(fits, allowed.sum(axis=1), 0)
            counts.append(jnp.where(tokens[0] == ev.EOS, token == ev.EOS, count) if attribute else count)
        return grammar.advance(state, event), jnp.stack(counts, axis=1)

    return jax.jit(lambda state, events: jax.lax.scan(step, state, jnp.moveaxis(events, 1, 0)))
