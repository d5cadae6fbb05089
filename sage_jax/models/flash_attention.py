"""Attention over whole crops by jax.nn.dot_product_attention: cuDNN's flash attention in bfloat16, plain XLA in float32.

Shapes as in attention.py. That function needs as many keys as queries. It therefore runs over tokens for heads that attend to
all attributes, and over events, once per attribute, for heads that attend to one.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.models.layout import KeysValues


def attend(q: jax.Array, new_kv: KeysValues, segment_ids: jax.Array | None, config: ModelConfig) -> jax.Array:
    """As models/attend.py without a cache, for models with `ModelConfig.supports_flash_attention`."""
    own = config.num_own_scope_groups
    parts = [attend_own(q[:, :, :, :own], new_kv, segment_ids)] if own else []
    if q.shape[3] > own:
        parts.append(attend_all(q[:, :, :, own:], new_kv, segment_ids))
    return jnp.concatenate(parts, axis=3)


def attend_all(q: jax.Array, new_kv: KeysValues, segment_ids: jax.Array | None) -> jax.Array:
    """Causal attention of q [B, N, A, X, Y, h] over the tokens of all attributes -> [B, N, A, X, Y, h].

    new_kv: keys and values of the same events, each [B, K, A, N, h]. segment_ids: int [B, N]; attention is restricted to equal
    ids. None means one segment per row.
    """
    B, N, A, X, Y, h = q.shape
    K = new_kv[0].shape[1]
    # dot_product_attention expects the query heads of a KV head to be adjacent.
    heads = q.reshape(B, N * A, X, K, Y // K, h).transpose(0, 1, 3, 2, 4, 5).reshape(B, N * A, X * Y, h)
    keys, values = (part.transpose(0, 3, 2, 1, 4).reshape(B, N * A, K, h) for part in new_kv)
    mask = None
    if segment_ids is not None:
        token_segment = jnp.repeat(segment_ids, A, axis=1)
        mask = token_segment[:, None, :, None] == token_segment[:, None, None, :]
    attended = _attend_causally(heads, keys, values, mask)
    return attended.reshape(B, N * A, K, X, Y // K, h).transpose(0, 1, 3, 2, 4, 5).reshape(B, N, A, X, Y, h)


def attend_own(q: jax.Array, new_kv: KeysValues, segment_ids: jax.Array | None) -> jax.Array:
    """Causal attention of q [B, N, A, X, Y, h] in which head group x attends to the tokens of attribute x only.

    new_kv: keys and values, each [B, K, X, N, h]. segment_ids as in attend_all. Returns the shape of q. A query of attribute
    a < x must not attend to attribute x of its own event. Such queries are shifted one event to the left, so that the ordinary
    causal mask applies, and their outputs are shifted back. The first event of a segment gets 0 there. If A = 1, an event is
    one token of the last attribute, and no query is shifted.
    """
    B, N, A, X, Y, h = q.shape
    K = new_kv[0].shape[1]
    attribute = np.arange(X - A, X)  # of each token
    shifted = (np.arange(X)[None, :] > attribute[:, None])[None, None, :, :, None, None]
    aligned = jnp.where(shifted, jnp.roll(q, -1, axis=1), q)
    # A KV head serves the A tokens of an event like A times as many query heads.
    heads = aligned.reshape(B, N, A, X, K, Y // K, h).transpose(0, 1, 3, 4, 2, 5, 6).reshape(B, N, X * A * Y, h)
    keys, values = (part.transpose(0, 3, 2, 1, 4).reshape(B, N, X * K, h) for part in new_kv)
    mask, is_first = None, (jnp.arange(N) == 0)[None]
    if segment_ids is not None:
        query_segments = jnp.stack([segment_ids, jnp.roll(segment_ids, -1, axis=1)])  # of aligned queries, of shifted ones
        masks = query_segments[:, :, :, None] == segment_ids[None, :, None, :]
        head_shifted = np.broadcast_to(shifted.reshape(A, X).T[:, None, :, None], (X, K, A, Y // K)).reshape(-1)
        mask = masks[head_shifted.astype(np.int32)].swapaxes(0, 1)
        is_first = is_first | (segment_ids != jnp.roll(segment_ids, 1, axis=1))
    attended = _attend_causally(heads, keys, values, mask)
    attended = attended.reshape(B, N, X, K, A, Y // K, h).transpose(0, 1, 4, 2, 3, 5, 6).reshape(B, N, A, X, Y, h)
    back = jnp.where(is_first[:, :, None, None, None, None], 0, jnp.roll(attended, 1, axis=1))
    return jnp.where(shifted, back, attended)


def resolve(config: ModelConfig, device: Any) -> ModelConfig:
    """`config` with attention_impl "flash" or "chunked" instead of "auto", for a `device` of jax or of a topology.

    Raises UserError for "flash" where the device has no kernel for the model's heads.
    """
    has = has_kernel(device, config.dtype, config.head_dim)
    if config.attention_impl == "flash" and not has:
        raise UserError(
            f"config.model.attention_impl is flash, which needs bfloat16, a head_dim up to 128 that 8 divides, and an NVIDIA "
            f"GPU since Ampere; this is {config.dtype}, {config.head_dim} and {device.device_kind}: give auto or chunked"
        )
    flash = has and config.attention_impl != "chunked" and not config.dropout_attention
    return dataclasses.replace(config, attention_impl="flash" if flash else "chunked")


def has_kernel(device: Any, dtype: str, head_dim: int) -> bool:
    """Whether cuDNN has a flash attention kernel for this head: on NVIDIA GPUs since Ampere, in bfloat16."""
    if device.platform not in ("gpu", "cuda") or not _fits_kernel(dtype, head_dim):
        return False
    generation = str(device.compute_capability).partition(".")[0]
    return generation.isdecimal() and int(generation) >= 8


def _fits_kernel(dtype: jax.typing.DTypeLike, head_dim: int) -> bool:
    return jnp.dtype(dtype) == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= 128


def _attend_causally(heads: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None) -> jax.Array:
    _, length, _, h = heads.shape
    # With a mask, cuDNN has a gradient for even lengths only.
    fits = _fits_kernel(heads.dtype, h) and (mask is None or length % 2 == 0)
    implementation: Literal["cudnn", "xla"] = "cudnn" if fits else "xla"
    return jax.nn.dot_product_attention(heads, keys, values, mask=mask, is_causal=True, implementation=implementation)
