"""The loss, the train step and the evaluation step: pure functions for jit, with or without shardings.

Shapes: B batch, N events (or other steps of the representation), A attributes, V_a vocabulary size of attribute a.
A batch holds events, int32 [B, N+1, A]. The model reads the first N. Its logits[a], [B, N, V_a], at event n predict attribute a
of event n for a > 0, and attribute 0 of event n + 1. A row may hold several packed pieces. Each starts with BOS, which has the
same id in every representation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sage_jax import struct
from sage_jax.models.dropout import DROPOUT
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import BOS, PAD, NoteEvents
from sage_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Logits = tuple[jax.Array, ...]  # by attribute


@dataclasses.dataclass(frozen=True)
class TokenAccounting:
    """Which tokens of a representation count in the loss, and how many notes they make.

    attributes: names. head_length: steps at the start of a piece that are given, not predicted.
    num_notes: steps [B, N, A] -> int32 [B, N], the notes that each step completes.
    """

    attributes: tuple[str, ...]
    head_length: int
    num_notes: Callable[[jax.Array], jax.Array]

    @classmethod
    def of(cls, representation: Tokenizer) -> "TokenAccounting":
        head_length = representation.head_length(np.zeros((0, len(representation.attributes))))
        num_notes = cast(Callable[[jax.Array], jax.Array], representation.num_notes)  # accepts jax arrays as well
        if len(representation.attributes) == 1:
            table = representation.num_notes(np.arange(representation.vocab_sizes[0])[:, None])
            num_notes = lambda steps: jnp.asarray(table)[steps[..., 0]]
        return cls(tuple(representation.attributes), head_length, num_notes)


NOTE_EVENTS = TokenAccounting.of(NoteEvents())


@struct.dataclass
class LossSums(struct.Struct):
    """Loss sums of a batch; the sums of several batches can be added.

    nll: float32 [A], negative log-likelihood of each attribute in nats. notes, tokens: int32 [], predicted notes and tokens.
    """

    nll: jax.Array
    notes: jax.Array
    tokens: jax.Array

    @classmethod
    def zeros(cls, num_attributes: int) -> "LossSums":
        return cls(jnp.zeros(num_attributes), jnp.int32(0), jnp.int32(0))

    def nats_per_note(self, attributes: tuple[str, ...] = NOTE_EVENTS.attributes) -> dict[str, jax.Array]:
        """'loss' and the share of each attribute in it, in nats per note."""
        notes = jnp.maximum(self.notes, 1)
        return {"loss": self.nll.sum() / notes, **dict(zip(attributes, self.nll / notes, strict=True))}


def cross_entropy(
    logits: Logits, events: jax.Array, accounting: TokenAccounting = NOTE_EVENTS, floors: jax.Array | None = None
) -> LossSums:
    """The loss sums of `events` [B, N+1, A] under the model's `logits`, without padding.

    Targets are the events after the head (BOS, meter and tempo) of each piece, so that losses of different crop lengths are
    comparable. Event N, which the model does not read, contributes its first attribute alone.
    floors: int [B, N+1] of events in roles, see tasks/weave.py. Only events whose floor is 0 are targets. A positive floor adds
    -log of the probability of all onsets from this id on.
    """
    index = jnp.arange(events.shape[1])[None]
    position = index - jax.lax.cummax(jnp.where(events[..., 0] == BOS, index, 0), axis=1)  # within the piece
    is_target = (events[..., 0] != PAD) & (position >= accounting.head_length)  # a padding event is PAD in attribute 0
    if floors is not None:
        is_target &= floors == 0
    nll = []
    for attribute, block in enumerate(logits):
        if attribute == 0:
            targets, counted = events[:, 1:, attribute], is_target[:, 1:]
        else:
            block, targets, counted = block[:, 1:], events[:, 1:-1, attribute], is_target[:, 1:-1]
        # Masked before the softmax: a mask after it would let a NaN at padding into the gradient, because 0 * NaN is NaN.
        block = jnp.where(counted[..., None], block.astype(jnp.float32), 0)
        nll.append(optax.softmax_cross_entropy_with_integer_labels(block, targets).sum(where=counted))
        if attribute == 0 and floors is not None:
            nll[0] += waiting_loss(logits[0], floors[:, 1:])
    tokens = is_target[:, 1:].sum() + (len(logits) - 1) * is_target[:, 1:-1].sum()
    complete = slice(1, None if len(logits) == 1 else -1)
    notes = jnp.where(is_target, accounting.num_notes(events), 0)[:, complete].sum()
    return LossSums(jnp.stack(nll), notes, tokens)


def waiting_loss(logits: jax.Array, floors: jax.Array) -> jax.Array:
    """The sum of -log P(onset >= floor) over all floors above 0, float32 []. logits [B, N, V], floors int [B, N]."""
    decides = floors > 0
    logits = jnp.where(decides[..., None], logits.astype(jnp.float32), 0)
    later = jnp.arange(logits.shape[-1])[None, None] >= floors[..., None]
    kept = jax.nn.logsumexp(jnp.where(later, logits, -jnp.inf), axis=-1)
    return (jax.nn.logsumexp(logits, axis=-1) - kept).sum(where=decides)


def segment_ids_of(events: jax.Array) -> jax.Array:
    """events [B, N, A] -> int32 [B, N]: the piece of its row that each event belongs to, counted from 1."""
    return jnp.cumsum(events[..., 0] == BOS, axis=1)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    grad_accum_steps: int = 1,
    accounting: TokenAccounting = NOTE_EVENTS,
    skip_bad: bool = False,
    loss_spike_factor: float = 0.0,
    axis_name: str | None = None,
    packed: bool = False,
    dropout_seed: int | None = None,
    ema_decay: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update by the gradient of the mean loss in nats per note. Returns the state and scalar metrics.

    The batch is split into `grad_accum_steps` micro-batches whose sums are accumulated, so the result does not depend on their
    number or their padding. The loss is that of the parameters before the update.
    The metric 'bad' is True if the loss or the gradient is not finite, or the loss exceeds `loss_spike_factor` times its
    moving average (0: no limit). With skip_bad a bad step changes only `state.step`.
    axis_name: the pmap axis over which losses and gradients are summed. packed: rows may hold several pieces.
    dropout_seed: of the run, for a model that drops; None drops nothing. The masks follow from it, the step, the micro-batch
    and the device alone, so that a resumed run has the same ones.
    ema_decay: of `TrainState.ema`, if there is one.
    """

    def loss_fn(params, events, floors, key=None):
        inputs, rngs = events[:, :-1], None if key is None else {DROPOUT: key}
        logits = model.apply({"params": params}, inputs, segment_ids_of(inputs) if packed else None, rngs=rngs)
        sums = cross_entropy(cast(Logits, logits), events, accounting, floors)
        return sums.nll.sum(), sums

    def add_micro_batch(total, micro_batch):
        return jax.tree.map(jnp.add, total, jax.grad(loss_fn, has_aux=True)(state.params, *micro_batch)), None

    # Row r goes to micro-batch r mod k, so that a batch sharded over devices stays on them.
    by_step = lambda array: array.reshape(-1, grad_accum_steps, *array.shape[1:]).swapaxes(0, 1)
    zeros = jax.tree.map(jnp.zeros_like, state.params), LossSums.zeros(len(accounting.attributes))
    micro_batches = (by_step(batch["events"]), jax.tree.map(by_step, batch.get("floors")))
    if dropout_seed is not None:
        micro_batches += (dropout_keys(dropout_seed, state.step, grad_accum_steps, axis_name),)
    (grads, sums), _ = jax.lax.scan(add_micro_batch, zeros, micro_batches)
    if axis_name:
        grads, sums = jax.lax.psum((grads, sums), axis_name)

    grads = jax.tree.map(lambda grad: grad / jnp.maximum(sums.notes, 1), grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = sums.nats_per_note(accounting.attributes) | {
        "notes": sums.notes,
        "tokens": sums.tokens,
        "grad_norm": optax.tree.norm(grads),
        "param_norm": optax.tree.norm(params),
    }
    bad = ~jnp.isfinite(metrics["loss"] + metrics["grad_norm"])
    if loss_spike_factor:
        bad |= metrics["loss"] > loss_spike_factor * state.loss_ema
    after = state.replace(
        params=params,
        opt_state=opt_state,
        loss_ema=state.next_loss_ema(metrics["loss"]),
        ema=state.next_ema(params, ema_decay),
    )
    if skip_bad:
        after = jax.tree.map(functools.partial(jnp.where, bad), state, after)
    return after.replace(step=state.step + 1), metrics | {"bad": bad}


def dropout_keys(seed: int, step: jax.Array, count: int, axis_name: str | None) -> jax.Array:
    """A key for each of the step's `count` micro-batches; on a device of its own if there is a pmap axis."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.split(jax.random.fold_in(key, jax.lax.axis_index(axis_name)) if axis_name else key, count)


def eval_step(
    params: Any, batch: Batch, *, model: nn.Module, accounting: TokenAccounting = NOTE_EVENTS, axis_name: str | None = None
) -> LossSums:
    """The loss sums of a batch, summed over the pmap axis `axis_name` if there is one."""
    logits = model.apply({"params": params}, batch["events"][:, :-1])
    sums = cross_entropy(cast(Logits, logits), batch["events"], accounting, batch.get("floors"))
    return jax.lax.psum(sums, axis_name) if axis_name else sums
