"""Checksums of arrays, computed on the devices that hold them; a change of any bit changes the checksum."""

import json
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.programs import stored
from sage_jax.training.sharding import paths


def checksums(tree: Any) -> dict[str, int]:
    """Path -> checksum of each array: sum over i of word_i * (2i + 1), modulo 2^32.

    Integer sums do not depend on their order, so the checksum does not depend on the sharding.
    """
    sums = _checksums([leaf for _, leaf in paths(tree)])
    return {path: int(number) for (path, _), number in zip(paths(tree), jax.device_get(sums), strict=True)}


def text_checksum(*values: Any) -> int:
    """CRC-32 of JSON-ready values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


@stored
@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")).astype(jnp.uint32)
    strides = [math.prod(words.shape[axis + 1 :]) for axis in range(words.ndim)]
    index = sum((jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride for axis, stride in enumerate(strides)), 0)
    return jnp.sum(words * jnp.asarray(2 * index + 1, jnp.uint32), dtype=jnp.uint32)
