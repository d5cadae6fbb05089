"""Bits per piece of models that learn nothing or next to nothing, beside which a trained model's bits per note are read.

uniform   every token is uniform over the ids that the grammar allows at its place
unigram   the frequency of each attribute's ids in the training split
markov    an interpolated Markov chain of order `ORDER` over tokens, fitted to the training split

They count the tokens that likelihood.py counts: every one after BOS, with meters, tempos, rests and the end of sequence.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.grammars.note_events import Grammar, GrammarState
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents

FLOORS = ("uniform", "unigram", "markov")
ORDER = 10  # tokens of the longest context, those of two events
ROWS = 16  # pieces that the grammar reads side by side
CHUNK = 256  # events that it reads in one call


@dataclasses.dataclass(frozen=True)
class Tokens:
    """T tokens, each with what it follows.

    attribute: int8 [T]. token: int16 [T]. before: int16 [T, ORDER], the tokens before each one, the latest last. A context
    that begins before BOS is filled with BOS.
    """

    attribute: np.ndarray
    token: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, pieces: Sequence[np.ndarray], order: int = ORDER) -> "Tokens":
        """The tokens of `pieces`, events [N, A] each, without those of BOS: event by event, attribute by attribute."""
        windows = [np.zeros((0, order + 1), np.int16)]
        for events in pieces:
            stream = np.concatenate([np.full(order, ev.BOS, np.int16), np.asarray(events)[1:].ravel().astype(np.int16)])
            if len(stream) > order:
                windows.append(np.lib.stride_tricks.sliding_window_view(stream, order + 1))
        found = np.concatenate(windows)
        attribute = np.arange(len(found)) % ev.NUM_ATTRIBUTES
        return cls(attribute.astype(np.int8), found[:, -1], found[:, :-1])


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
        "markov": markov(sizes, seen, scored),
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


# Uniform over what the grammar allows


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


# Frequencies in the training split


def unigram(sizes: Sequence[int], training: Tokens, scored: Tokens) -> np.ndarray:
    """The probability of each scored token from the frequencies of its attribute's ids, float64 [T].

    One is added to the frequency of each of the attribute's ids, of which `sizes` gives the number.
    """
    first = np.cumsum([0, *sizes])
    count = np.bincount(first[training.attribute] + training.token, minlength=first[-1]) + 1
    return count[first[scored.attribute] + scored.token] / np.add.reduceat(count, first[:-1])[scored.attribute]


def markov(sizes: Sequence[int], training: Tokens, scored: Tokens) -> np.ndarray:
    """The probability of each scored token in its context, float64 [T].

    A context of order n is the attribute of the token and the n tokens before it. Let N be how often the training split has
    the context, D the number of different ids that follow it, and C how often the token does. The probability of order n is
    (C + D q) / (N + D), where q is that of order n - 1 and in the end one over the size of the attribute's vocabulary. This is
    method C of Witten and Bell (1991), "The zero-frequency problem", IEEE Transactions on Information Theory 37, interpolated.
    A context that the training split lacks leaves q as it is.
    """
    probability = 1 / np.array(sizes, np.float64)[scored.attribute]
    width = max(sizes)
    # Contexts are numbered order by order: each is the number of its shorter context with one more token.
    known, context = training.attribute.astype(np.int64), scored.attribute.astype(np.int64)
    size = len(sizes)
    for order in range(training.before.shape[1] + 1):
        if order:
            contexts, known = np.unique(known * width + training.before[:, -order], return_inverse=True)
            context = np.where(context < 0, -1, _place(contexts, context * width + scored.before[:, -order]))
            size = len(contexts)
        pairs, times = np.unique(known * width + training.token, return_counts=True)
        owner = pairs // width
        different, total = np.bincount(owner, minlength=size), np.bincount(owner, times, minlength=size)
        seen = np.flatnonzero((context >= 0) & (total[context] > 0))
        found = context[seen]
        place = _place(pairs, found * width + scored.token[seen])
        together = np.where(place < 0, 0, times[place])
        backed_off = different[found] * probability[seen]
        probability[seen] = (together + backed_off) / (total[found] + different[found])
    return probability


def _place(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The index of each of `wanted` [T] in the sorted `keys`, -1 where it is not there; int64 [T]."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
