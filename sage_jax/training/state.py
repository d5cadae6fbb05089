"""The train state: arrays and nothing else, so that it can be donated, sharded and saved as it is."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

RECENCY = 0.95


@flax.struct.dataclass
class TrainState:
    """step: int32 [], the steps taken. params: plain dict, float32.

    recent: float32 [], the loss of the last steps, each weighing RECENCY of the one after it; infinite before the first one.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    recent: jax.Array

    def with_recent(self, loss: jax.Array) -> jax.Array:
        """`recent` with one more loss."""
        return jnp.where(jnp.isinf(self.recent), loss, RECENCY * self.recent + (1 - RECENCY) * loss)


def init_state(seed: int, *, model: nn.Module, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step. Pure, so that eval_shape and jit with shardings can wrap it."""
    key, _ = jax.random.split(jax.random.key(seed))  # split, so that a seed still draws the parameters of RESULTS.md
    params = model.init(key, jnp.zeros((1, 2, model.config.num_attributes), jnp.int32))["params"]
    return TrainState(jnp.int32(0), params, tx.init(params), jnp.float32(jnp.inf))
