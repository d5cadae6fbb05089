"""The loss, the train step and the evaluation step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.config import RunConfig
from sage_jax.models.transformer import Transformer
from sage_jax.tokenizers.note_events import ATTRIBUTES, FIRST_PROGRAM, HEAD, INSTRUMENT, PAD
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.state import init_state
from sage_jax.training.step import cross_entropy, dropout_keys, eval_step, train_step
from tests.training.tiny import random_events, tiny_config

GOLDEN = {
    "bad": False,
    "duration": 5.6022,
    "grad_norm": 21.7891,
    "instrument": 5.5784,
    "loss": 31.1239,
    "notes": 18.0,
    "onset": 8.3839,
    "param_norm": 34.5414,
    "pitch": 7.3175,
    "tokens": 103.0,
    "velocity": 4.2419,
}


RUN = RunConfig.from_dict(tiny_config(train=dict(steps=30), optimizer=dict(learning_rate=0.02, warmup_steps=0)).to_dict())
TX = make_optimizer(RUN.optimizer, RUN.train.steps)


def jitted_step(config=RUN.model, **settings):
    return jax.jit(functools.partial(train_step, model=Transformer(config), tx=TX, **settings))


@pytest.fixture(scope="module")
def state():
    return jax.jit(functools.partial(init_state, model=Transformer(RUN.model), tx=TX))(0)


@pytest.fixture(scope="module")
def update():
    return jitted_step(grad_accum_steps=1)


@pytest.fixture(scope="module")
def skipping():
    """A step that skips bad ones, of two micro-batches."""
    return jitted_step(grad_accum_steps=2, skip_bad=True, loss_spike_factor=2.0)


def random_logits(events, seed=0):
    rng = np.random.default_rng(seed)
    B, N = events[:, 1:].shape[:2]
    return tuple(rng.normal(size=(B, N, size)).astype(np.float32) for size in RUN.model.vocab_sizes)


def test_losses_equal_those_of_a_naive_loop():
    events = random_events(3)
    logits = random_logits(events)
    nll, notes, tokens = np.zeros(5), 0, 0
    for b in range(events.shape[0]):
        for n in range(HEAD, events.shape[1]):
            if events[b, n, 0] == PAD:
                continue
            last = n == events.shape[1] - 1
            notes += not last and events[b, n, INSTRUMENT] >= FIRST_PROGRAM
            for a in range(1 if last else 5):
                scores = np.asarray(logits[a][b, n - 1 if a == 0 else n], np.float64)
                nll[a] += np.log(np.exp(scores).sum()) - scores[events[b, n, a]]
                tokens += 1
    totals = jax.jit(cross_entropy)(logits, events)
    np.testing.assert_allclose(totals.nll, nll, rtol=1e-5)
    assert (totals.notes, totals.tokens) == (notes, tokens)
    shares = totals.nats_per_note()
    np.testing.assert_allclose(shares["loss"], sum(shares[name] for name in ATTRIBUTES), rtol=1e-6)
    np.testing.assert_allclose(shares["pitch"], nll[2] / notes, rtol=1e-5)


def test_nan_in_the_logits_of_padding_reaches_neither_the_loss_nor_its_gradient():
    events = random_events(3)
    logits = random_logits(events)
    padding = (events[:, 1:, 0] == PAD)[..., None]
    after = np.roll(padding, 1, axis=1)
    after[:, 0] = False
    # The logits of the onset are one event before their targets.
    poisoned = tuple(np.where(after if a else padding, np.float32(np.nan), block) for a, block in enumerate(logits))
    assert any(np.isnan(block).any() for block in poisoned)

    def loss(logits):
        return cross_entropy(logits, events).nll.sum()

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    (clean, clean_grads), (dirty, dirty_grads) = value_and_grad(logits), value_and_grad(poisoned)
    np.testing.assert_array_equal(clean, dirty)
    jax.tree.map(np.testing.assert_array_equal, clean_grads, dirty_grads)


def test_the_contents_of_padding_change_nothing(state, update):
    events = random_events(4)
    garbage = events.copy()
    padding = events[..., 0] == PAD
    garbage[padding] = random_events(4, seed=1, context_events=8)[:, [1]].repeat(9, axis=1)[padding]
    garbage[padding, 0] = PAD
    assert (garbage != events).any()
    clean, dirty = (update(state, {"events": each}) for each in (events, garbage))
    jax.tree.map(np.testing.assert_array_equal, clean[1], dirty[1])
    jax.tree.map(np.testing.assert_array_equal, clean[0].params, dirty[0].params)


def test_golden_metrics_of_one_step(state, update):
    state, metrics = update(state, {"events": random_events(4)})
    assert int(state.step) == 1
    got = {name: round(float(value), 4) for name, value in sorted(metrics.items())}
    message = f"The first step's metrics changed. If that was meant, set GOLDEN in {__file__} to\n{got}"
    assert got.keys() == GOLDEN.keys(), message
    np.testing.assert_allclose(list(got.values()), [GOLDEN[name] for name in got], rtol=5e-4, err_msg=message)


def test_micro_batches_add_up_to_the_whole_batch(state, update, skipping):
    """Even if they hold different numbers of notes. Whether bad steps are skipped does not matter here."""
    batch = {"events": random_events(4)}
    lengths = (batch["events"][..., 0] != PAD).sum(axis=1)
    assert lengths[::2].sum() != lengths[1::2].sum()
    (one, one_metrics), (two, two_metrics) = update(state, batch), skipping(state, batch)
    for name in one_metrics:
        np.testing.assert_allclose(one_metrics[name], two_metrics[name], rtol=1e-5, err_msg=name)
    # Moments are compared, not parameters: Adam divides by them, which amplifies rounding where a gradient is nearly 0.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), one.opt_state, two.opt_state)


def test_eval_step_and_train_step_have_the_same_loss(state, update):
    batch = {"events": random_events(4)}
    score = jax.jit(functools.partial(eval_step, model=Transformer(RUN.model)))
    evaluated = score(state.params, batch).nats_per_note()["loss"]
    np.testing.assert_allclose(evaluated, update(state, batch)[1]["loss"], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_falls_on_a_repeated_batch(state, update, dtype):
    if dtype != "float32":
        update = jitted_step(dataclasses.replace(RUN.model, dtype=dtype))
    batch = {"events": random_events(4)}
    losses = []
    for _ in range(RUN.train.steps):
        state, metrics = update(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


def test_the_state_holds_only_arrays(state):
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def is_same(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("fault", ["spike", "nan"])
def test_a_skipped_step_changes_only_the_step_counter(state, skipping, fault):
    bad = state.replace(loss_ema=jnp.float32(0.1))
    if fault == "nan":
        broken = state.params["embedding_0"].at[:].set(jnp.nan)
        bad = state.replace(params=state.params | {"embedding_0": broken})
    after, metrics = skipping(bad, {"events": random_events(4)})
    assert bool(metrics["bad"]) and int(after.step) == 1
    for field in ("opt_state", "loss_ema"):
        assert is_same(getattr(after, field), getattr(bad, field))
    assert is_same(after.params["head_0"], bad.params["head_0"])


def test_a_good_step_is_taken_and_updates_the_average_loss(state, skipping, update):
    batch = {"events": random_events(4)}
    once, metrics = skipping(state, batch)
    assert not metrics["bad"] and once.loss_ema == metrics["loss"]
    # Two compiled functions may round differently.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), once.params, update(state, batch)[0].params
    )
    twice, metrics = skipping(once, batch)
    np.testing.assert_allclose(twice.loss_ema, 0.95 * once.loss_ema + 0.05 * metrics["loss"], rtol=1e-6)


def test_dropout_depends_on_the_seed_the_step_the_micro_batch_and_the_device():
    keys = lambda *arguments: [tuple(row) for row in np.asarray(jax.random.key_data(dropout_keys(*arguments))).tolist()]
    found = keys(0, jnp.int32(3), 2, None)
    assert len(set(found)) == 2 and found == keys(0, jnp.int32(3), 2, None)
    assert not set(found) & {*keys(0, jnp.int32(4), 2, None), *keys(1, jnp.int32(3), 2, None)}
    by_device = jax.vmap(lambda _: jax.random.key_data(dropout_keys(0, jnp.int32(3), 2, "devices")), axis_name="devices")
    assert len({tuple(row) for row in np.asarray(by_device(np.zeros(4))).reshape(8, -1).tolist()}) == 8


def test_the_average_moves_towards_the_parameters_and_a_bad_step_leaves_it(state):
    averaged = state.replace(ema=state.params)
    later = jax.tree.map(lambda leaf: leaf + 1, state.params)
    for step, share in ((0, 0.9), (100, 0.2)):  # 1 - (1 + 0) / (10 + 0), and then 1 - 0.8
        found = averaged.replace(step=jnp.int32(step)).next_ema(later, 0.8)
        np.testing.assert_allclose(found["head_0"], state.params["head_0"] + share, atol=1e-6)
    assert state.next_ema(later, 0.8) is None and averaged.evaluated is averaged.ema and state.evaluated is state.params
