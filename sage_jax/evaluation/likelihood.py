"""How well a model foretells music: bits per note and per second over whole pieces, comparable whatever its tokens are.

Every token of a piece counts, its meters, tempos, rests and end too, and every note counts once; what differs between
tokenizations is how many tokens they need, which the sum over a note's tokens leaves out of account. A piece longer than the
model's context is read in windows that overlap: each event is foretold once, behind at least half a context where the
piece has that much before it. In training the meter and the tempo that a crop begins with are given; here they count at
the beginning of a piece, which no model was taught to foretell: what that costs is told apart.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import make_model
from sage_jax.music.representation import Representation


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Of P pieces: bits float64 [P, A] of each attribute's tokens, notes int [P], seconds float64 [P] of music.

    opening: float64 [P], the part of `bits` that the meter and tempo at the beginning cost.
    """

    bits: np.ndarray
    opening: np.ndarray
    notes: np.ndarray
    seconds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a piece as the model reads it: events [N, A], of which those from `first` on are to be foretold."""

    piece: int
    events: np.ndarray
    first: int


def bits(
    config: ModelConfig,
    params,
    tokenizer: Representation,
    pieces: Sequence[np.ndarray],
    context: int,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Likelihood:
    """The likelihood of `pieces`, the steps [N, A] of each, under a model that was trained on `context` steps."""
    found = (
        Window(piece, *window) for piece, steps in enumerate(pieces) for window in tokenizer.windows(np.asarray(steps), context)
    )
    todo = sorted(found, key=lambda window: len(window.events))
    A = config.num_attributes
    total, opening = np.zeros((len(pieces), A)), np.zeros(len(pieces))
    nats = jax.jit(functools.partial(event_nats, make_model(config)))
    for start in range(0, len(todo), batch_size):
        batch = todo[start : start + batch_size]
        rows = np.zeros((batch_size, context, A), np.int32)
        counted = np.zeros((batch_size, context), bool)
        for row, count, window in zip(rows, counted, batch, strict=False):
            row[: len(window.events)] = window.events
            count[window.first : len(window.events)] = True
        found = np.where(counted[..., None], np.asarray(nats(params, rows)), 0).astype(np.float64)[: len(batch)]
        np.add.at(total, [window.piece for window in batch], found.sum(axis=1))
        for row, window in zip(found, batch, strict=True):
            if window.first == 1:
                opening[window.piece] = row[1 : tokenizer.head_length(window.events)].sum()
        progress(min(start + batch_size, len(todo)), len(todo))
    decoded = [tokenizer.decode(events) for events in pieces]
    return Likelihood(
        total / np.log(2),
        opening / np.log(2),
        np.array([len(piece.notes) for piece in decoded]),
        np.array([float(piece.seconds(piece.end)) for piece in decoded]),
    )


def event_nats(model: nn.Module, params, events: jax.Array) -> jax.Array:
    """Nats of each token of `events` [B, N, A] given all before it, float32 [B, N, A]; 0 for the first event."""
    logits = model.apply({"params": params}, events)
    nats = []
    for attribute, block in enumerate(logits):
        # An onset is foretold at the last token of the event before it, the other attributes within their event.
        block = block[:, :-1] if attribute == 0 else block[:, 1:]
        chosen = jnp.take_along_axis(block, events[:, 1:, attribute, None], axis=-1)[..., 0]
        nats.append(jax.nn.logsumexp(block.astype(jnp.float32), axis=-1) - chosen)
    return jnp.pad(jnp.stack(nats, axis=-1), ((0, 0), (1, 0), (0, 0)))
