"""Attention of whole pieces through jax.nn.dot_product_attention, which on a GPU in bfloat16 is cuDNN's flash attention.

Shapes as in attention.py. What that function knows is causal attention of as many queries as keys: of tokens for the heads
that hear them all, and of events, attribute by attribute, for those that hear one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.cache import KeysValues


def attend_all(q: jax.Array, fresh: KeysValues, pieces: jax.Array | None) -> jax.Array:
    """q [B, N, A, X, Y, h] over all A tokens of the same events, each in `fresh` [B, K, A, N, h] -> [B, N, A, X, Y, h]."""
    B, N, A, X, Y, h = q.shape
    K = fresh[0].shape[1]
    # A key-value head's query heads stand beside each other.
    heads = q.reshape(B, N * A, X, K, Y // K, h).transpose(0, 1, 3, 2, 4, 5).reshape(B, N * A, X * Y, h)
    keys, values = (part.transpose(0, 3, 2, 1, 4).reshape(B, N * A, K, h) for part in fresh)
    mask = None
    if pieces is not None:
        of_tokens = jnp.repeat(pieces, A, axis=1)
        mask = of_tokens[:, None, :, None] == of_tokens[:, None, None, :]
    mixed = _attend_causally(heads, keys, values, mask)
    return mixed.reshape(B, N * A, K, X, Y // K, h).transpose(0, 1, 3, 2, 4, 5).reshape(B, N, A, X, Y, h)


def attend_own(q: jax.Array, fresh: KeysValues, pieces: jax.Array | None) -> jax.Array:
    """q [B, N, A, X, Y, h], of which group x hears attribute x alone, as far as its token has been read -> the same shape.

    fresh: [B, K, X, N, h]. Where an event is one token, A = 1, it has read all that its event has. A query that is of an earlier
    attribute than its keys hears the events before its own alone: it then takes the place of the query of the event before, whose
    mask is that one, and 0 is what the first of a piece hears.
    """
    B, N, A, X, Y, h = q.shape
    K = fresh[0].shape[1]
    attribute = np.arange(X - A, X)  # of each token
    late = (np.arange(X)[None, :] > attribute[:, None])[None, None, :, :, None, None]
    moved = jnp.where(late, jnp.roll(q, -1, axis=1), q)
    # To a key-value head, tokens of an event are more heads that hear it.
    heads = moved.reshape(B, N, A, X, K, Y // K, h).transpose(0, 1, 3, 4, 2, 5, 6).reshape(B, N, X * A * Y, h)
    keys, values = (part.transpose(0, 3, 2, 1, 4).reshape(B, N, X * K, h) for part in fresh)
    mask, first = None, (jnp.arange(N) == 0)[None]
    if pieces is not None:
        hears = jnp.stack([pieces, jnp.roll(pieces, -1, axis=1)])[:, :, :, None] == pieces[None, :, None, :]
        of_head = np.broadcast_to(late.reshape(A, X).T[:, None, :, None], (X, K, A, Y // K)).reshape(-1)
        mask = hears[of_head.astype(np.int32)].swapaxes(0, 1)
        first = first | (pieces != jnp.roll(pieces, 1, axis=1))
    mixed = _attend_causally(heads, keys, values, mask)
    mixed = mixed.reshape(B, N, X, K, A, Y // K, h).transpose(0, 1, 4, 2, 3, 5, 6).reshape(B, N, A, X, Y, h)
    back = jnp.where(first[:, :, None, None, None, None], 0, jnp.roll(mixed, 1, axis=1))
    return jnp.where(late, back, mixed)


def has_kernel(dtype: jnp.dtype, head_width: int) -> bool:
    """Whether cuDNN has a kernel for it, which never has all scores at a time: from NVIDIA's Ampere on."""
    if jax.default_backend() != "gpu" or dtype != jnp.bfloat16 or head_width % 8 or head_width > 128:
        return False
    generation = jax.local_devices()[0].compute_capability.partition(".")[0]
    return generation.isdecimal() and int(generation) >= 8


def _attend_causally(heads: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None) -> jax.Array:
    _, length, _, h = heads.shape
    # With a mask, cuDNN's gradient is of even lengths.
    kernel = "cudnn" if has_kernel(heads.dtype, h) and (mask is None or length % 2 == 0) else "xla"
    return jax.nn.dot_product_attention(heads, keys, values, mask=mask, is_causal=True, implementation=kernel)
