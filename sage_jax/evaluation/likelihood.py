"""Log-likelihood of whole pieces in bits per note and per second, comparable between tokenizations.

Every token of a piece counts, including meters, tempos, rests and the end of sequence. The sum over all tokens is divided by
the number of notes or seconds, so that tokenizations with more or fewer tokens per note are comparable.
A piece longer than the model's context is scored in overlapping windows. Each event is scored once, with at least half a
context before it where the piece has that much.
In training the meter and tempo at the start of a crop are given. Here those at the start of a piece count too, although no
model was trained to predict them; `Likelihood.opening` reports their cost.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.flash_attention import resolve
from sage_jax.models.registry import build_model
from sage_jax.programs import stored
from sage_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """The likelihood of P pieces.

    bits: float64 [P, A], of each attribute's tokens. opening: float64 [P], the part of `bits` for the first meter and tempo.
    notes: int [P]. seconds: float64 [P], the duration of the music.
    """

    bits: np.ndarray
    opening: np.ndarray
    notes: np.ndarray
    seconds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Window:
    """A window of a piece: events [N, A]. The events from index `first` on are scored."""

    piece: int
    events: np.ndarray
    first: int


def bits(
    config: ModelConfig,
    params,
    tokenizer: Tokenizer,
    pieces: Sequence[np.ndarray],
    context: int,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Likelihood:
    """The likelihood of `pieces`, each steps [N, A], under a model with a training context of `context` steps."""
    windows = (
        Window(piece, *window) for piece, steps in enumerate(pieces) for window in tokenizer.windows(np.asarray(steps), context)
    )
    todo = sorted(windows, key=lambda window: len(window.events))
    A = config.num_attributes
    total, opening = np.zeros((len(pieces), A)), np.zeros(len(pieces))
    nats = _compiled_event_nats(config)
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


@functools.lru_cache(maxsize=8)
def _compiled_event_nats(config: ModelConfig) -> Callable:
    """event_nats of (params, events); calls of one model and one shape share what is compiled."""
    # A run that was trained with flash attention may be scored on a device that has no kernel for it.
    impl = "auto" if config.attention_impl == "flash" else config.attention_impl
    config = resolve(dataclasses.replace(config, attention_impl=impl), jax.devices()[0])
    return stored(jax.jit(functools.partial(event_nats, build_model(config))), key=config)


def event_nats(model: nn.Module, params, events: jax.Array) -> jax.Array:
    """Negative log-likelihood of each token of `events` [B, N, A] in nats, float32 [B, N, A]; 0 for the first event."""
    logits = cast(Sequence[jax.Array], model.apply({"params": params}, events))
    nats = []
    for attribute, block in enumerate(logits):
        # The last token of an event predicts the next onset; the other attributes are predicted within their event.
        block = block[:, :-1] if attribute == 0 else block[:, 1:]
        chosen = jnp.take_along_axis(block, events[:, 1:, attribute, None], axis=-1)[..., 0]
        nats.append(jax.nn.logsumexp(block.astype(jnp.float32), axis=-1) - chosen)
    return jnp.pad(jnp.stack(nats, axis=-1), ((0, 0), (1, 0), (0, 0)))
