"""What bounds a decode step: the bytes that it must move, and how fast this device moves bytes."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.transformer import Transformer

READ_BYTES = 512 << 20  # far more than any cache of a processor


def event_step_bytes(config: ModelConfig, batch: int, context_events: int) -> int:
    """Bytes that drawing one event for each row must read: for each of its A tokens the weights that the token meets and
    the whole allocated cache. Rows of embeddings, activations and the new keys and values are left out: all are small.
    """
    A = config.num_attributes
    events = jax.ShapeDtypeStruct((1, 1, A), jnp.int32)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), events)["params"]
    weights = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(path)
        if "embedding" in name:
            continue
        # A token meets the key-value kernel of its attribute alone, and one of the A heads.
        once = "head_" in name or "key_value_" in name
        weights += leaf.size * (1 if once else A)
    cache = jax.eval_shape(lambda: Cache.empty(config, batch, context_events))
    return weights * jnp.dtype(config.dtype).itemsize + A * cache.num_bytes


def bandwidth_probe() -> Callable[[], float]:
    """A function that measures the memory bandwidth for reading, bytes per second, each time it is called."""
    data = jnp.ones((READ_BYTES // 4 // 1024, 1024), jnp.float32)
    total = jax.jit(lambda data: data.sum(axis=1))
    jax.block_until_ready(total(data))

    def measure() -> float:
        began = time.perf_counter()
        jax.block_until_ready(total(data))
        return READ_BYTES / (time.perf_counter() - began)

    return measure
