"""The learning rate schedule, weight decay and clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.config import OptimizerConfig, RunConfig
from sage_jax.models.registry import abstract_params
from sage_jax.training.optimizer import decay_mask, make_optimizer, make_schedule
from tests.training.tiny import tiny_config


def test_the_schedule_is_a_linear_warm_up_and_a_cosine_decay():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=4, final_lr_fraction=0.1), steps=24)
    rates = np.array([schedule(step) for step in range(30)])
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    np.testing.assert_allclose(rates[14], 0.55, rtol=1e-5)  # half way down
    np.testing.assert_allclose(rates[24:], 0.1, rtol=1e-5)
    assert (np.diff(rates[4:25]) < 0).all()


@pytest.mark.parametrize(("warmup", "first"), [(0, 1.0), (1, 1.0), (10, 0.1)])
def test_short_warm_ups_and_short_runs_have_a_positive_learning_rate(warmup, first):
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=warmup), steps=2)
    np.testing.assert_allclose(schedule(0), first, rtol=1e-6)
    assert np.isfinite(schedule(1)) and schedule(1) > 0


def test_weight_decay_applies_to_matrices_but_not_to_embeddings_and_norms():
    params = abstract_params(RunConfig.from_dict(tiny_config().to_dict()).model)
    decays = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(decay_mask(params))}
    assert {name.split("'")[-2] for name, value in decays.items() if value} == {
        *("query", "output", "gate_up", "down"),
        *(f"{name}_{attribute}" for name in ("key_value", "head") for attribute in range(5)),
    }


def test_weight_decay_is_decoupled_and_clipping_is_by_global_norm():
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=1.0)
    tx = make_optimizer(config, steps=10)
    params = {"matrix": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    still, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(still["matrix"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(still["scale"], 0)
    _, state = tx.update(jax.tree.map(lambda leaf: 100 * jnp.ones_like(leaf), params), tx.init(params), params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    first = sum(float(jnp.square(leaf).sum()) for leaf in moments[:2]) ** 0.5
    np.testing.assert_allclose(first, (1 - config.b1) * config.clip_norm, rtol=1e-5)
