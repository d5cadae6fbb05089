"""The loss and the train step: pure functions, which a caller may wrap in jit with or without shardings.

Shapes: B batch, N events (or whatever steps the representation has), A attributes, V_a size of attribute a's block of the
vocabulary. A batch holds events int32 [B, N+1, A]; the model reads the first N of them, and its logits[a] [B, N, V_a] at event n
predict that event's attribute a, but for the first one, which is the next event's. Several pieces may be packed in a row:
each begins with BOS, which has the same id in every representation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sage_jax.music.events import BOS, PAD, NoteEvents
from sage_jax.music.representation import Representation
from sage_jax.training.state import TrainState

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Counting:
    """What is counted in the steps of a representation.

    attributes: their names. head: the steps at the beginning of a crop that are given. num_notes: the notes int32 [B, N] that
    steps [B, N, A] complete.
    """

    attributes: tuple[str, ...]
    head: int
    num_notes: Callable[[jax.Array], jax.Array]

    @classmethod
    def of(cls, representation: Representation) -> "Counting":
        head = representation.head_length(np.zeros((0, len(representation.attributes))))
        num_notes = representation.num_notes
        if len(representation.attributes) == 1:
            table = num_notes(np.arange(representation.vocab_sizes[0])[:, None])
            num_notes = lambda steps: jnp.asarray(table)[steps[..., 0]]
        return cls(tuple(representation.attributes), head, num_notes)


NOTE_EVENTS = Counting.of(NoteEvents())


@flax.struct.dataclass
class Totals:
    """Sums over a batch, which add up over batches.

    nll: float32 [A], nats of each attribute's tokens. notes, tokens: int32 [], how many were predicted.
    """

    nll: jax.Array
    notes: jax.Array
    tokens: jax.Array

    @classmethod
    def zeros(cls, num_attributes: int) -> "Totals":
        return cls(jnp.zeros(num_attributes), jnp.int32(0), jnp.int32(0))

    def nats_per_note(self, attributes: tuple[str, ...] = NOTE_EVENTS.attributes) -> dict[str, jax.Array]:
        """'loss' and its share of each attribute, in nats per note."""
        notes = jnp.maximum(self.notes, 1)
        return {"loss": self.nll.sum() / notes, **dict(zip(attributes, self.nll / notes, strict=True))}


def count_losses(logits: tuple[jax.Array, ...], events: jax.Array, counting: Counting = NOTE_EVENTS) -> Totals:
    """The losses of `events` [B, N+1, A] under the model's `logits`; padding counts nothing.

    Targets are the events behind each piece's head (BOS, meter and tempo), which is given: so crops of any length measure
    the same. Of event N, which the model does not read, there is the first attribute alone.
    """
    number = jnp.arange(events.shape[1])[None]
    place = number - jax.lax.cummax(jnp.where(events[..., 0] == BOS, number, 0), axis=1)
    # Padding is whole events.
    real = (events[..., 0] != PAD) & (place >= counting.head)
    nll = []
    for attribute, block in enumerate(logits):
        if attribute == 0:
            targets, counted = events[:, 1:, attribute], real[:, 1:]
        else:
            block, targets, counted = block[:, 1:], events[:, 1:-1, attribute], real[:, 1:-1]
        # Masked before the softmax: a NaN at padding then stays out of the gradient too, where 0 * NaN is NaN.
        block = jnp.where(counted[..., None], block.astype(jnp.float32), 0)
        nll.append(optax.softmax_cross_entropy_with_integer_labels(block, targets).sum(where=counted))
    tokens = real[:, 1:].sum() + (len(logits) - 1) * real[:, 1:-1].sum()
    whole = slice(1, None if len(logits) == 1 else -1)
    notes = jnp.where(real, counting.num_notes(events), 0)[:, whole].sum()
    return Totals(jnp.stack(nll), notes, tokens)


def pieces_of(events: jax.Array) -> jax.Array:
    """events [B, N, A] -> int32 [B, N]: of each event, which one of the pieces in its row it belongs to."""
    return jnp.cumsum(events[..., 0] == BOS, axis=1)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    accumulate: int = 1,
    counting: Counting = NOTE_EVENTS,
    skip_bad: bool = False,
    spike: float = 0.0,
    axis: str | None = None,
    packed: bool = False,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update by the gradient of the mean nats per note, and its metrics (float32 or int32 scalars).

    The batch is taken in `accumulate` micro-batches. Sums and counts are accumulated, so that their number changes
    nothing but memory, whatever padding each of them has. The metrics' loss is that of the params before the update.
    A step is bad, as the metric 'bad' tells, where the loss or the gradient is not finite, or the loss is above `spike` times
    the recent ones (0 for no limit). Where bad ones are skipped, they change nothing but the step.
    axis: of devices that have other rows of the batch each, under pmap. packed: whether a row may have several pieces.
    """

    def loss(params, events):
        read = events[:, :-1]
        logits = model.apply({"params": params}, read, pieces_of(read) if packed else None)
        totals = count_losses(logits, events, counting)
        return totals.nll.sum(), totals

    def add_micro_batch(sums, events):
        return jax.tree.map(jnp.add, sums, jax.grad(loss, has_aux=True)(state.params, events)), None

    # Row r goes to micro-batch r mod k, so that a batch sharded over devices stays on them.
    events = batch["events"].reshape(-1, accumulate, *batch["events"].shape[1:]).swapaxes(0, 1)
    zeros = jax.tree.map(jnp.zeros_like, state.params), Totals.zeros(len(counting.attributes))
    (grads, totals), _ = jax.lax.scan(add_micro_batch, zeros, events)
    if axis:
        grads, totals = jax.lax.psum((grads, totals), axis)

    grads = jax.tree.map(lambda grad: grad / jnp.maximum(totals.notes, 1), grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = totals.nats_per_note(counting.attributes) | {
        "notes": totals.notes,
        "tokens": totals.tokens,
        "grad_norm": optax.tree.norm(grads),
        "param_norm": optax.tree.norm(params),
    }
    bad = ~jnp.isfinite(metrics["loss"] + metrics["grad_norm"])
    if spike:
        bad |= metrics["loss"] > spike * state.recent
    after = state.replace(params=params, opt_state=opt_state, recent=state.with_recent(metrics["loss"]))
    if skip_bad:
        after = jax.tree.map(functools.partial(jnp.where, bad), state, after)
    return after.replace(step=state.step + 1), metrics | {"bad": bad}


def eval_step(
    params: Any, batch: Batch, *, model: nn.Module, counting: Counting = NOTE_EVENTS, axis: str | None = None
) -> Totals:
    """The losses of a batch, as sums and counts; over all devices of an `axis` under pmap."""
    totals = count_losses(model.apply({"params": params}, batch["events"][:, :-1]), batch["events"], counting)
    return jax.lax.psum(totals, axis) if axis else totals
