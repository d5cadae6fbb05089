"""Attention with shared key-value heads: mha, gqa, mqa and as_kvhs are one module.

Shapes: B batch, N events, A attributes of an event in this call (all of them, or one while decoding), T = N A tokens,
S keys, H query heads, K key-value heads per token, G query heads per lane, L lanes, D model width, h head width.

A lane is one set of keys and values with the query heads that read it. Scope all has K lanes of all tokens; scope own has
K lanes for each attribute, of that attribute's tokens only. Everything below the projections is the same for both.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.cache import KeysValues
from sage_jax.models.config import ModelConfig

MASKED = -1e30  # finite, so that a row without any key gives 0 and not NaN
LEAST = -1e20


class Past(NamedTuple):
    """What one layer remembers of the events before: as in Cache, but cached is None where the cache is known to be empty."""

    cached: KeysValues | None
    pending: KeysValues
    length: jax.Array | int
    start: jax.Array


class Attention(nn.Module):
    """Causal self-attention over tokens, keys and values made by each token's own attribute in as_kvhs."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rotation, past: Past | None = None, first: int = 0):
        """x [B, N, A, D] -> [B, N, A, D], and the keys and values of these events, each [B, K, all A, N, h].

        rotation: (cos, sin) [N, h / 2] of the events. past: what came before them, None for nothing. first: the attribute of
        x[:, :, 0]; where that is not 0, the tokens before it are past.pending.
        """
        config = self.config
        D, H, K, h = config.width, config.heads, config.cached_heads, config.head_width
        last = nn.initializers.normal((H * h * 2 * config.layers) ** -0.5)
        dense = nn.initializers.lecun_normal()
        query = self.param("query", dense, (D, H * h)).astype(x.dtype)
        # A kernel for each attribute is a parameter of its own: XLA copies a slice of a larger one before each product.
        specialised = [f"key_value_{a}" for a in range(config.num_attributes)]
        names = specialised if config.sharing == "as_kvhs" else ["key_value"]
        kernels = [self.param(name, dense, (D, 2 * K * h)).astype(x.dtype) for name in names]
        output = self.param("output", last, (H * h, D)).astype(x.dtype)

        B, N, A, _ = x.shape
        q = rotate((x @ query).reshape(B, N, A, H, h), rotation)
        k, v = jnp.moveaxis(_project(x, kernels, first).reshape(B, N, A, 2, K, h), 3, 0)
        k = rotate(k, rotation).transpose(0, 3, 2, 1, 4)  # [B, K, A, N, h]
        v = v.transpose(0, 3, 2, 1, 4)
        if A < config.num_attributes:
            k, v = (
                jax.lax.dynamic_update_slice(pending, new, (0, 0, first, 0, 0))
                for pending, new in zip(past.pending, (k, v), strict=True)
            )
        mixed = _attend_in_blocks(q, (k, v), past, config, first)
        return mixed.reshape(B, N, A, H * h) @ output, (k, v)


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


def _project(x: jax.Array, kernels: list[jax.Array], first: int) -> jax.Array:
    """x [B, N, A, D] through the one kernel for all, or through each attribute's own."""
    if len(kernels) == 1:
        return x @ kernels[0]
    return jnp.stack([x[:, :, a] @ kernels[first + a] for a in range(x.shape[2])], axis=2)


def _attend_in_blocks(q, fresh: KeysValues, past: Past | None, config: ModelConfig, first: int):
    """q [B, N, A, H, h] over what is past and over itself -> [B, N, A, H, h], `query_block` events at a time.

    A block meets no fresh key that is later than its last event at all.
    """
    N, block = q.shape[1], config.query_block
    if N <= block:
        return _attend(q, fresh, past, config, 0, first)
    attend = jax.checkpoint(_attend, static_argnums=(3, 4, 5)) if config.recompute_attention else _attend
    outs = []
    for low in range(0, N, block):
        high = min(low + block, N)
        outs.append(attend(q[:, low:high], tuple(part[:, :, :, :high] for part in fresh), past, config, low, first))
    return jnp.concatenate(outs, axis=1)


def _attend(q, fresh: KeysValues, past: Past | None, config: ModelConfig, low: int, first: int):
    """One block of queries, the first of which belongs to fresh event `low`; the heads of scope own come first."""
    own = config.own_heads
    parts = []
    if own:
        parts.append(_attend_lanes(q[..., :own, :], fresh, past, low, first, own_scope=True))
    if own < config.heads:
        parts.append(_attend_lanes(q[..., own:, :], fresh, past, low, first, own_scope=False))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=3)


def _attend_lanes(q, fresh: KeysValues, past: Past | None, low: int, first: int, own_scope: bool):
    B, N, A, H, h = q.shape
    K, attributes = fresh[0].shape[1:3]
    # Heads to lanes; the rows of a lane are its (token, head) pairs, so that one product serves them all.
    if own_scope:
        lanes, G = K * attributes, H // (attributes * K)
        rows = q.reshape(B, N * A, attributes, K, G, h).transpose(0, 3, 2, 1, 4, 5)
    else:
        lanes, G = K, H // K
        rows = q.reshape(B, N * A, K, G, h).transpose(0, 2, 1, 3, 4)
    rows = rows.reshape(B, lanes, N * A * G, h)

    def in_lanes(part):  # [B, K, all A, S, h] -> [B, L, keys of the lane, h], without a copy
        return part.reshape(B, lanes, -1, h)

    def of_keys(numbers):  # [.., all A, S] -> [.., L, 1, 1, keys of the lane], a number or flag for each key
        numbers = jnp.broadcast_to(numbers[:, None], (numbers.shape[0], K, *numbers.shape[1:]))
        return numbers.reshape(numbers.shape[0], lanes, 1, 1, -1)

    S = fresh[0].shape[3]
    key_token = jnp.arange(S)[None, None, :] * attributes + jnp.arange(attributes)[None, :, None]
    query_token = ((low + jnp.arange(N))[:, None] * attributes + first + jnp.arange(A)[None, :]).reshape(-1)
    seen = of_keys(key_token) <= query_token[None, None, :, None, None]  # [1, L, T, 1, keys]
    if past is not None:
        key_event = jnp.broadcast_to(past.length + jnp.arange(S), (1, attributes, S))
        seen &= of_keys(key_event) >= past.start[:, None, None, None, None]
    sources = [(*map(in_lanes, fresh), seen)]
    if past is not None and past.cached is not None:
        S = past.cached[0].shape[3]
        key_event = of_keys(jnp.broadcast_to(jnp.arange(S), (1, attributes, S)))
        seen = (key_event < past.length) & (key_event >= past.start[:, None, None, None, None])
        sources.append((*map(in_lanes, past.cached), seen))
    out = _softmax_average(rows, sources, groups=G)

    if own_scope:
        return out.reshape(B, K, attributes, N * A, G, h).transpose(0, 3, 2, 1, 4, 5).reshape(B, N, A, H, h)
    return out.reshape(B, K, N * A, G, h).transpose(0, 2, 1, 3, 4).reshape(B, N, A, H, h)


def _softmax_average(rows, sources, groups: int):
    """rows [B, L, T G, h] over all sources (k, v [B, L, S, h], seen broadcastable to [B, L, T, G, S]) -> [B, L, T G, h].

    The softmax is in float32. A row that sees no key gives 0: so the first tokens of BOS, in scope own, have a value that
    does not depend on how much room the cache has.
    """
    rows = rows * jnp.asarray(rows.shape[-1] ** -0.5, rows.dtype)
    B, L, R, _ = rows.shape
    scores = []
    for k, _, seen in sources:
        of_source = jnp.einsum("blrh,blsh->blrs", rows, k, preferred_element_type=jnp.float32)
        of_source = jnp.where(seen, of_source.reshape(B, L, R // groups, groups, -1), MASKED)
        scores.append(of_source.reshape(B, L, R, -1))
    peaks = (jax.lax.stop_gradient(part.max(axis=-1, keepdims=True)) for part in scores)
    peak = functools.reduce(jnp.maximum, peaks, LEAST)
    total, out = 0.0, 0.0
    for part, (_, v, _) in zip(scores, sources, strict=True):
        weights = jnp.exp(part - peak)
        total += weights.sum(axis=-1, keepdims=True)
        out += jnp.einsum("blrs,blsh->blrh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / jnp.maximum(total, 1e-30)).astype(rows.dtype)
