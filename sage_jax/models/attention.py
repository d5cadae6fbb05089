"""Attention with shared key-value heads: mha, gqa, mqa and as_kvhs are one module.

Shapes: B batch, N events, A attributes of an event in this call (all of them, or one while decoding), T = N A tokens,
S keys, H query heads, K key-value heads per token, G query heads per lane, L lanes, D model width, h head width.

A lane is one set of keys and values with the query heads that read it. Scope all has K lanes of all tokens; scope own has
K lanes for each attribute, of that attribute's tokens only. Everything below the projections is the same for both.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.config import ModelConfig

MASKED = -1e30  # finite, so that a row without any key gives 0 and not NaN
LEAST = -1e20


class Attention(nn.Module):
    """Causal self-attention over tokens, keys and values made by each token's own attribute in as_kvhs."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rotation, buffers=None, length=None, start=None, first: int = 0):
        """x [B, N, A, D] -> [B, N, A, D], and the layer's cache buffers with the new keys and values written.

        rotation: (cos, sin) [N, h / 2] of the events. buffers: (keys, values) [B, K, all A, S, h] that hold `length`
        events, None for none at all: then attention is within x. start [B]: the first event that is not padding. first: the
        attribute of x[:, :, 0].
        """
        config = self.config
        D, H, K, h = config.width, config.heads, config.cached_heads, config.head_width
        dense = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-2, out_axis=-1, batch_axis=(0,))
        last = nn.initializers.normal((H * h * 2 * config.layers) ** -0.5)
        sets = config.num_attributes if config.sharing == "as_kvhs" else 1
        query = self.param("query", nn.initializers.lecun_normal(), (D, H * h)).astype(x.dtype)
        key_value = self.param("key_value", dense, (sets, D, 2 * K * h)).astype(x.dtype)
        output = self.param("output", last, (H * h, D)).astype(x.dtype)

        B, N, A, _ = x.shape
        q = rotate((x @ query).reshape(B, N, A, H, h), rotation)
        k, v = jnp.moveaxis(_project(x, key_value, first).reshape(B, N, A, 2, K, h), 3, 0)
        k = rotate(k, rotation).transpose(0, 3, 2, 1, 4)  # [B, K, A, N, h]
        v = v.transpose(0, 3, 2, 1, 4)
        if buffers is not None:
            at = (0, 0, first, 0 if length is None else length, 0)
            buffers = tuple(
                jax.lax.dynamic_update_slice(buffer, new, at) for buffer, new in zip(buffers, (k, v), strict=True)
            )
            k, v = (k, v) if length is None else buffers
        mixed = _attend_in_blocks(q, k, v, config, 0 if length is None else length, start, first)
        return mixed.reshape(B, N, A, H * h) @ output, buffers


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary positions (RoFormer, arXiv 2104.09864) over events: x [B, N, A, heads, h], the two halves of h as pairs."""
    cos, sin = (part[None, :, None, None, :] for part in rotation)
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)


def rotations(events: jax.Array, head_width: int, base: float) -> tuple[jax.Array, jax.Array]:
    """(cos, sin), each [N, h / 2], of the event numbers [N]."""
    frequency = base ** (-jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    angle = events.astype(jnp.float32)[:, None] * frequency[None, :]
    return jnp.cos(angle), jnp.sin(angle)


def _project(x: jax.Array, kernels: jax.Array, first: int) -> jax.Array:
    """x [B, N, A, D] through one kernel for all, or through each attribute's own: static slices, never a gather."""
    if kernels.shape[0] == 1:
        return x @ kernels[0]
    return jnp.stack([x[:, :, a] @ kernels[first + a] for a in range(x.shape[2])], axis=2)


def _attend_in_blocks(q, k, v, config: ModelConfig, length, start, first: int):
    """q [B, N, A, H, h] over k, v [B, K, all A, S, h] -> [B, N, A, H, h], `query_block` events at a time.

    Within x (nothing cached, so S is N) a block meets no later key at all.
    """
    N, S, block = q.shape[1], k.shape[3], config.query_block
    if N <= block:
        return _attend(q, k, v, length, start, config, first)
    attend = jax.checkpoint(_attend, static_argnums=(5, 6)) if config.recompute_attention else _attend
    outs = []
    for low in range(0, N, block):
        high = min(low + block, N)
        seen = high if S == N else S
        outs.append(attend(q[:, low:high], k[:, :, :, :seen], v[:, :, :, :seen], length + low, start, config, first))
    return jnp.concatenate(outs, axis=1)


def _attend(q, k, v, length, start, config: ModelConfig, first: int):
    """One block of queries, the first of which belongs to event `length`; the heads of scope own come first."""
    own = config.own_heads
    parts = []
    if own:
        parts.append(_attend_lanes(q[..., :own, :], k, v, length, start, first, own_scope=True))
    if own < config.heads:
        parts.append(_attend_lanes(q[..., own:, :], k, v, length, start, first, own_scope=False))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=3)


def _attend_lanes(q, k, v, length, start, first: int, own_scope: bool):
    B, N, A, H, h = q.shape
    K, attributes, S = k.shape[1:4]
    event, attribute = jnp.arange(S), jnp.arange(attributes)
    key_token = event[None, :] * attributes + attribute[:, None]  # [all A, S]
    key_event = jnp.broadcast_to(event[None, :], key_token.shape)
    # Heads to lanes; the rows of a lane are its (token, head) pairs, so that one product serves them all.
    if own_scope:
        G = H // (attributes * K)
        rows = q.reshape(B, N * A, attributes, K, G, h).transpose(0, 3, 2, 1, 4, 5)
        lanes = K * attributes
        k, v = (part.reshape(B, lanes, S, h) for part in (k, v))
        key_token, key_event = (jnp.tile(part, (K, 1)) for part in (key_token, key_event))  # [L, S]
    else:
        G = H // K
        rows = q.reshape(B, N * A, K, G, h).transpose(0, 2, 1, 3, 4)
        lanes = K
        k, v = (part.reshape(B, lanes, attributes * S, h) for part in (k, v))
        key_token, key_event = (part.reshape(1, attributes * S) for part in (key_token, key_event))
    rows = rows.reshape(B, lanes, N * A * G, h)

    query_token = ((length + jnp.arange(N))[:, None] * attributes + first + jnp.arange(A)[None, :]).reshape(-1)
    seen = key_token[None, :, None, None, :] <= query_token[None, None, :, None, None]  # [1, L, T, 1, S]
    if start is not None:
        seen &= key_event[None, :, None, None, :] >= start[:, None, None, None, None]
    out = _softmax_average(rows, k, v, seen, groups=G)

    if own_scope:
        return out.reshape(B, K, attributes, N * A, G, h).transpose(0, 3, 2, 1, 4, 5).reshape(B, N, A, H, h)
    return out.reshape(B, K, N * A, G, h).transpose(0, 2, 1, 3, 4).reshape(B, N, A, H, h)


def _softmax_average(rows, k, v, seen, groups: int):
    """rows [B, L, T G, h], k and v [B, L, S, h], seen broadcastable to [B, L, T, G, S] -> [B, L, T G, h].

    The softmax is in float32. A row that sees no key gives 0: so the first tokens of BOS, in scope own, have a value that
    does not depend on how much room the cache has.
    """
    scale = rows.shape[-1] ** -0.5
    scores = jnp.einsum("blrh,blsh->blrs", rows * jnp.asarray(scale, rows.dtype), k, preferred_element_type=jnp.float32)
    B, L, R, S = scores.shape
    scores = jnp.where(seen, scores.reshape(B, L, R // groups, groups, S), MASKED).reshape(B, L, R, S)
    peak = jnp.maximum(jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)), LEAST)
    weights = jnp.exp(scores - peak)
    total = weights.sum(axis=-1, keepdims=True)
    out = jnp.einsum("blrs,blsh->blrh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / jnp.maximum(total, 1e-30)).astype(v.dtype)
