"""A number for each array of a tree that is another one when any bit of the array is, made where the array lies."""

import json
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.training.sharding import paths


def digests(tree: Any) -> dict[str, int]:
    """By path, the sum of an array's words, each times an odd number of its place, modulo 2^32.

    It does not depend on how the array is spread over devices: integers add up to the same in any order.
    """
    found = _digests([leaf for _, leaf in paths(tree)])
    return {path: int(number) for (path, _), number in zip(paths(tree), jax.device_get(found), strict=True)}


def text_digest(*values: Any) -> int:
    """Of what is JSON-ready."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


@jax.jit
def _digests(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_digest(leaf) for leaf in leaves]


def _digest(leaf: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")).astype(jnp.uint32)
    strides = [math.prod(words.shape[axis + 1 :]) for axis in range(words.ndim)]
    place = sum((jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride for axis, stride in enumerate(strides)), 0)
    return jnp.sum(words * jnp.asarray(2 * place + 1, jnp.uint32), dtype=jnp.uint32)
