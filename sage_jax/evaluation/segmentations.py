"""What the other segmentations of the same tokens would take off the bits of a BPE model, by importance sampling.

REMI+ tokens can be cut into BPE ids in many ways, the segmentations. The bits of likelihood.py are those of the canonical one,
which the tokenizer encodes. The probability of the music is the sum over all of them. So these bits are an upper bound.

The estimate is that of Cao and Rimell (2021), "You should evaluate your language model on marginal likelihood over
tokenisations". A draw cuts the tokens from left to right. Each step samples from the model among the ids that match: their
tokens equal the next ones. The weight of a draw is the product over its steps of the total probability of the matching ids.

The canonical segmentation is often likely as a whole but seldom drawn, since its first ids also begin many others. So its
probability is added as it is, and its draws have no weight. The sum of it and the mean weight is the marginal probability,
without bias. The logarithm of a mean is too low on average. So the estimate of the gap is too small on average, by less with
more draws, and never negative.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.flash_attention import resolve
from sage_jax.models.registry import build_model
from sage_jax.programs import stored
from sage_jax.tokenizers.bpe import RemiBpe

ROWS = 16  # segmentations in one pass through the model


@dataclasses.dataclass(frozen=True)
class Opening:
    """The beginning of a piece: ids int32 [N], the canonical ones, and the tokens int [T] after the first `head` of them."""

    ids: np.ndarray
    head: int
    tokens: np.ndarray

    @classmethod
    def of(cls, tokenizer: RemiBpe, ids: np.ndarray, steps: int, name: str) -> "Opening":
        """The first `steps` of `ids` [N, 1]. Raises ValueError, with the name of the piece, if they end within the head."""
        head = tokenizer.head_length(ids)
        if ids.ndim != 2 or ids.shape[1] != 1 or min(len(ids), steps) <= head:
            raise ValueError(f"{name} has the shape {ids.shape}, steps is {steps}; give ids [N, 1], more than {head} of them")
        opening = ids[:steps, 0].astype(np.int32)
        return cls(opening, head, tokenizer.expand(opening[head:])[0])


def marginal_gap(
    config: ModelConfig, params, tokenizer: RemiBpe, pieces: Sequence[np.ndarray], steps: int, draws: int, seed: int = 0
) -> list[tuple[float, float, int]]:
    """(bits of the canonical ids, estimated bits of all segmentations of the same tokens, notes) for the opening of each piece.

    pieces: the canonical ids [N, 1] of each. An opening is the first `steps` ids. Its head is given and not scored. A
    segmentation ends where the opening ends. Rows of the model are as long as the longest opening has tokens, which may be more
    than its training context. Raises ValueError for a piece that has no id after its head, and for no draws.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; give at least 1")
    openings = [Opening.of(tokenizer, np.asarray(ids), steps, f"piece {number}") for number, ids in enumerate(pieces)]
    capacity = max((opening.head + len(opening.tokens) for opening in openings), default=0)
    log_probabilities = functools.partial(_compiled_log_probabilities(config), params)
    results = []
    for number, opening in enumerate(openings):
        rng = np.random.default_rng((seed, number))
        weights, canonical = _draw(log_probabilities, tokenizer, opening, draws, capacity, rng)
        marginal = np.logaddexp(canonical, np.logaddexp.reduce(weights) - np.log(draws))
        notes = int(tokenizer.num_notes(opening.ids[opening.head :, None]).sum())
        results.append((float(-canonical / np.log(2)), float(-marginal / np.log(2)), notes))
    return results


def _draw(
    log_probabilities: Callable, tokenizer: RemiBpe, opening: Opening, draws: int, capacity: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """(log weights float64 [draws], log probability of the canonical ids), in nats. All rows advance by an id at a time.

    The weight of a draw of the canonical ids is 0.
    """
    candidates, sizes = matching_ids(tokenizer, opening.tokens)
    head, rows = opening.head, draws + 1
    events = np.zeros((rows, capacity, 1), np.int32)
    events[:, :head, 0] = opening.ids[:head]
    place, score = np.zeros(rows, np.int64), np.zeros(rows)  # tokens read, nats
    for length in range(head, head + len(opening.tokens)):
        active = np.flatnonzero(place < len(opening.tokens))
        if not len(active):
            break
        ids = candidates[place[active]]
        found = np.where(ids < 0, -np.inf, _gather(log_probabilities, events[active], length, ids))
        gumbel = rng.gumbel(size=(rows, ids.shape[1]))[active]
        chosen = np.argmax(found + gumbel, axis=1)
        gained = np.logaddexp.reduce(found, axis=1)
        if active[-1] == draws:
            # The last row is the canonical one, which is scored and not drawn.
            chosen[-1] = np.flatnonzero(ids[-1] == opening.ids[length])[0]
            gained[-1] = found[-1, chosen[-1]]
        score[active] += gained
        events[active, length, 0] = ids[np.arange(len(active)), chosen]
        place[active] += sizes[place[active], chosen]
    other = (events[:-1] != events[-1:]).any(axis=(1, 2))
    return np.where(other, score[:-1], -np.inf), float(score[-1])


def matching_ids(tokenizer: RemiBpe, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids, sizes): the ids whose tokens are the next ones at each of `tokens` [T], and their numbers of tokens; int [T, M].

    An id that reaches beyond the last token does not match. Where fewer than M ids match, the others are -1 and 0.
    """
    letters, offsets = tokenizer.expand(np.arange(tokenizer.vocab_sizes[0]))
    ids = {letters[begin:end].tobytes(): number for number, (begin, end) in enumerate(itertools.pairwise(offsets))}
    lengths = np.unique(np.diff(offsets)).tolist()
    found = []
    for place in range(len(tokens)):
        following = [(ids.get(tokens[place : place + size].tobytes(), -1), size) for size in lengths]
        found.append([(number, size) for number, size in following if number >= 0 and place + size <= len(tokens)])
    table = np.full((2, len(tokens), max(map(len, found), default=0)), [[[-1]], [[0]]])
    for place, matches in enumerate(found):
        table[:, place, : len(matches)] = np.array(matches).T
    return table[0], table[1]


def _gather(log_probabilities: Callable, events: np.ndarray, length: int, ids: np.ndarray) -> np.ndarray:
    """The log probability of each of `ids` [R, M] after the first `length` of `events` [R, N, 1], float64 [R, M]."""
    parts = [np.zeros((0, ids.shape[1]))]
    for start in range(0, len(events), ROWS):
        part = events[start : start + ROWS]
        batch = np.zeros((ROWS, *part.shape[1:]), np.int32)
        batch[: len(part)] = part
        rows = np.asarray(log_probabilities(batch, np.int32(length)))[: len(part)].astype(np.float64)
        parts.append(np.take_along_axis(rows, ids[start : start + ROWS], axis=1))
    return np.concatenate(parts)


@functools.lru_cache(maxsize=8)
def _compiled_log_probabilities(config: ModelConfig) -> Callable:
    """next_log_probabilities of (params, events, length); calls of one model and one shape share what is compiled."""
    # A run that was trained with flash attention may be scored on a device that has no kernel for it.
    impl = "auto" if config.attention_impl == "flash" else config.attention_impl
    config = resolve(dataclasses.replace(config, attention_impl=impl), jax.devices()[0])
    return stored(jax.jit(functools.partial(next_log_probabilities, build_model(config))), key=config)


def next_log_probabilities(model: nn.Module, params, events: jax.Array, length: jax.Array) -> jax.Array:
    """The log probability of each id after the first `length` of `events` [B, N, 1], float32 [B, V] in nats."""
    (logits,) = model.apply({"params": params}, events)  # type: ignore[misc]  # one attribute
    last = jax.lax.dynamic_index_in_dim(logits, length - 1, axis=1, keepdims=False)
    return jax.nn.log_softmax(last.astype(jnp.float32), axis=-1)
