"""Models by architecture, and their parameters."""

import re
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.models.backbone import Backbone
from sage_jax.models.config import ModelConfig
from sage_jax.models.delay import Delay
from sage_jax.models.nested import Nested
from sage_jax.models.pooled import Compound, Pooled
from sage_jax.models.transformer import Transformer
from sage_jax.programs import shapes_of

# Parameters that a forward pass reads in float32 for every dtype: scales of norms, and embeddings, which are summed before the
# sum is cast.
IN_FLOAT32 = re.compile(r"scale|(attribute_)?embedding(_\d+)?")
MODELS = {"flat": Transformer, "pooled": Pooled, "compound": Compound, "nested": Nested, "delay": Delay}


def build_model(config: ModelConfig) -> Backbone:
    """The module of this architecture, without parameters."""
    return MODELS[config.architecture](config)


def abstract_params(config: ModelConfig) -> dict[str, Any]:
    """The model's parameters as ShapeDtypeStructs; allocates and compiles nothing."""
    events = jax.ShapeDtypeStruct((1, 2, config.num_attributes), jnp.int32)
    init = lambda events: build_model(config).init(jax.random.key(0), events)["params"]
    return shapes_of(init, events, key=config)


def cast_parameters(config: ModelConfig, params: Any) -> Any:
    """`params` in the types that a forward pass uses, config.dtype or float32: the same logits without a cast per pass."""

    def cast(path: tuple, leaf: Any) -> jax.Array:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return jnp.asarray(leaf, jnp.float32 if IN_FLOAT32.fullmatch(name) else config.dtype)

    return jax.tree_util.tree_map_with_path(cast, params)
