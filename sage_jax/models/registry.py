"""Models by architecture, and their parameters."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.models.backbone import Backbone
from sage_jax.models.config import ModelConfig
from sage_jax.models.delay import Delay
from sage_jax.models.dense import matrix_shape
from sage_jax.models.nested import Nested
from sage_jax.models.pooled import Compound, Pooled
from sage_jax.models.transformer import Transformer
from sage_jax.programs import shapes_of

# Parameters that a forward pass reads in float32 for every dtype: scales of norms, and embeddings, which are summed before the
# sum is cast.
IN_FLOAT32 = re.compile(r"scale|(attribute_)?embedding(_\d+)?(_track|_given)?")
MODELS = {"flat": Transformer, "pooled": Pooled, "compound": Compound, "nested": Nested, "delay": Delay}


def build_model(config: ModelConfig) -> Backbone:
    """The module of this architecture, without parameters."""
    return MODELS[config.architecture](config)


@functools.lru_cache(maxsize=32)
def abstract_params(config: ModelConfig) -> dict[str, Any]:
    """The model's parameters as ShapeDtypeStructs; allocates and compiles nothing. The result is shared: leave it as it is."""
    events = jax.ShapeDtypeStruct((1, 2, config.num_attributes), jnp.int32)
    # One layer is traced in a twelfth of the time of twelve. How it attends makes no difference.
    one_layer = build_model(dataclasses.replace(config, num_layers=1, attention_impl="chunked"))
    init = lambda events: one_layer.init(jax.random.key(0), events)["params"]
    params = dict(shapes_of(init, events, key=config))
    block = params.pop("block_0")
    return params | {f"block_{layer}": block for layer in range(config.num_layers)}


def inference_config(config: ModelConfig, device: Any) -> ModelConfig:
    """`config` as a trained model uses it on a `device` of jax. On a CPU that is float32, and no kernel for GPUs.

    A CPU without products in bfloat16 converts each operand: 16 rows of sage-20m decode five times as fast in float32.
    """
    return dataclasses.replace(config, dtype="float32", decode_impl="xla") if device.platform == "cpu" else config


def inference_parameters(config: ModelConfig, params: Any) -> Any:
    """`params` in the types and layouts that a forward pass on one device uses: the same logits without a cast per pass.

    Kernels become matrices of config.dtype; what `IN_FLOAT32` names stays in float32. params: arrays or ShapeDtypeStructs,
    which stay what they are.
    """

    def convert(path: tuple, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        dtype = jnp.float32 if IN_FLOAT32.fullmatch(name) else jnp.dtype(config.dtype)
        shape = matrix_shape(name, leaf.shape)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf.update(shape=shape, dtype=dtype)
        return jnp.asarray(leaf, dtype).reshape(shape)

    return jax.tree_util.tree_map_with_path(convert, params)
