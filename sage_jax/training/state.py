"""The train state: a pytree of arrays alone, so that it can be donated, sharded and saved."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sage_jax import struct

if TYPE_CHECKING:
    import optax  # takes 0.2 s, and a model that only plays needs none

LOSS_EMA_DECAY = 0.95


@struct.dataclass
class TrainState(struct.Struct):
    """step: int32 [], the number of steps taken. params: nested dict of float32 arrays.

    ema: exponential moving average of `params`, which validation, sampling and export use; None without one.
    loss_ema: float32 [], exponential moving average of the loss with decay LOSS_EMA_DECAY; infinite before the first step.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    loss_ema: jax.Array
    ema: Any = None

    @property
    def evaluated(self) -> Any:
        """The parameters that validation, sampling and export use: the average, if there is one."""
        return self.params if self.ema is None else self.ema

    def next_ema(self, params: Any, decay: float) -> Any:
        """`ema` updated with the parameters after one more step; None without one.

        Early on the decay is (1 + step) / (10 + step), if that is less, so that the initial parameters are soon forgotten (as
        TensorFlow's ExponentialMovingAverage does it).
        """
        if self.ema is None:
            return None
        share = 1 - jnp.minimum(decay, (1 + self.step) / (10 + self.step))
        return jax.tree.map(lambda average, new: average + share * (new - average), self.ema, params)

    def to_tree(self) -> dict[str, Any]:
        """The fields by name, as checkpoints have them: without `ema` if there is none, as those of earlier versions."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    def next_loss_ema(self, loss: jax.Array) -> jax.Array:
        """`loss_ema` updated with one more loss."""
        return jnp.where(jnp.isinf(self.loss_ema), loss, LOSS_EMA_DECAY * self.loss_ema + (1 - LOSS_EMA_DECAY) * loss)


def init_state(seed: int, *, model: nn.Module, tx: optax.GradientTransformation, averaged: bool = False) -> TrainState:
    """The state before the first step, with an average of the parameters if `averaged`.

    A pure function, for eval_shape and for jit with shardings.
    """
    key, _ = jax.random.split(jax.random.key(seed))  # the split keeps the initial parameters of the runs in RESULTS.md
    params = model.init(key, jnp.zeros((1, 2, model.config.num_attributes), jnp.int32))["params"]
    return TrainState(jnp.int32(0), params, tx.init(params), jnp.float32(jnp.inf), params if averaged else None)
