"""Dropout (Srivastava et al. 2014) from one stream of keys: only where the caller of `apply` gives a key.

Training gives rngs={DROPOUT: key}. Initialization, evaluation and decoding give none, so that nothing is dropped there.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

DROPOUT = "dropout"  # the name of the stream


def dropout_key(module: nn.Module, rate: float) -> jax.Array | None:
    """A key of its own for each call in a module; None where nothing is dropped."""
    return module.make_rng(DROPOUT) if rate and module.has_rng(DROPOUT) else None


def drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """`x` with each element 0 with probability `rate`, and divided by 1 - rate elsewhere; `x` itself without a key."""
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0).astype(x.dtype)
