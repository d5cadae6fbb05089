"""The loss of events in roles: targets alone count, and each wait is the probability of all later onsets."""

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.tasks.weave import NO_TARGET
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import HEAD
from sage_jax.training.step import NOTE_EVENTS, cross_entropy, waiting_loss

SIZES = (12, 9, 8, 7, 6)
loss_of = jax.jit(cross_entropy, static_argnums=2)
gradient_of = jax.jit(jax.grad(lambda logits, events, floors: cross_entropy(logits, events, NOTE_EVENTS, floors).nll.sum()))


def case(seed: int = 0, rows: int = 2, steps: int = 9):
    rng = np.random.default_rng(seed)
    events = np.stack([rng.integers(ev.FIRST, size, (rows, steps)) for size in SIZES], axis=-1)
    events[:, 0] = ev.BOS
    logits = tuple(jnp.asarray(rng.normal(size=(rows, steps - 1, size)), jnp.float32) for size in SIZES)
    floors = rng.choice([0, 0, NO_TARGET, 5, 9], (rows, steps))
    return logits, jnp.asarray(events), jnp.asarray(floors)


def test_the_loss_is_that_of_targets_and_of_waits():
    logits, events, floors = case()
    found = loss_of(logits, events, NOTE_EVENTS, floors)
    nats = [np.asarray(-jax.nn.log_softmax(block, axis=-1), np.float64) for block in logits]
    expected, notes = np.zeros(len(SIZES)), 0
    for row in range(events.shape[0]):
        for n in range(1, events.shape[1]):
            floor = int(floors[row, n])
            if floor > 0:
                expected[0] += -np.log(np.exp(-nats[0][row, n - 1, floor:]).sum())
            if floor != 0 or n < HEAD:
                continue
            expected[0] += nats[0][row, n - 1, events[row, n, 0]]
            if n < events.shape[1] - 1:
                notes += events[row, n, ev.INSTRUMENT] >= ev.FIRST_PROGRAM
                for attribute in range(1, len(SIZES)):
                    expected[attribute] += nats[attribute][row, n, events[row, n, attribute]]
    np.testing.assert_allclose(found.nll, expected, rtol=1e-5)
    assert found.notes == notes


def test_without_floors_nothing_changes():
    logits, events, _ = case(1)
    zeros = jnp.zeros(events.shape[:2], jnp.int32)
    for one, other in zip(jax.tree.leaves(loss_of(logits, events)), jax.tree.leaves(
        loss_of(logits, events, NOTE_EVENTS, zeros)), strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other)


def test_to_draw_before_a_key_and_to_wait_for_it_are_all_that_can_happen():
    logits = case(2)[0][0]
    floor = jnp.full(logits.shape[:2], 7)
    one = lambda row, step: waiting_loss(logits[row : row + 1, step : step + 1], floor[:1, :1])
    early = jax.nn.softmax(logits, axis=-1)[..., :7].sum(axis=-1)
    np.testing.assert_allclose(jnp.exp(-one(1, 3)) + early[1, 3], 1, rtol=1e-5)


def test_gradients_are_finite_where_nothing_waits():
    logits, events, floors = case(3)
    none = jnp.full_like(floors, NO_TARGET)
    gradient = gradient_of(logits, events, none)
    assert all(np.isfinite(leaf).all() and not leaf.any() for leaf in gradient)
    gradient = gradient_of(logits, events, floors)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
