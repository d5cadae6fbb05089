"""The model of a config, by its form."""

from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.models.backbone import Backbone
from sage_jax.models.config import ModelConfig
from sage_jax.models.delay import Delay
from sage_jax.models.nested import Nested
from sage_jax.models.pooled import Compound, Pooled
from sage_jax.models.transformer import Transformer

MODELS = {"flat": Transformer, "pooled": Pooled, "compound": Compound, "nested": Nested, "delay": Delay}


def make_model(config: ModelConfig) -> Backbone:
    """The module, without parameters."""
    return MODELS[config.form](config)


def parameter_shapes(config: ModelConfig) -> dict[str, Any]:
    """The model's parameters as ShapeDtypeStructs: nothing is drawn or compiled."""
    events = jax.ShapeDtypeStruct((1, 2, config.num_attributes), jnp.int32)
    return jax.eval_shape(make_model(config).init, jax.random.key(0), events)["params"]
