"""Causal self-attention with shared key-value heads: mha, gqa, mqa and as_kvhs in one module.

Shape legend, used by all modules of this package:
  B  rows of the batch
  N  events in this call
  A  tokens of each event in this call: one per attribute; 1 in event-level models and while one token is decoded
  T  query tokens, N A
  E  keys of each event in a KV head (ModelConfig.keys_per_event)
  S  events of a key buffer: N for new keys, the capacity for cached ones
  D  embed_dim
  h  head_dim
  F  hidden width of an MLP
  V  vocabulary size of one attribute
  K  KV heads (ModelConfig.cached_kv_heads)
  X  groups of query heads (ModelConfig.num_query_groups)
  Y  query heads in each of those groups
  G  KV groups (ModelConfig.kv_groups)
  Q  keys of each event in a KV group, M = Q S keys in all
  U  groups of query heads that attend to one KV group
  R  query heads of each of those groups that attend to one KV group, Y / K

A KV group is one set of keys and values together with the query heads that attend to it. Scope "all" has one KV group per KV
head, over the tokens of all attributes: G = K, Q = E, U = X. Scope "own" has one per KV head and attribute, over that
attribute's tokens: G = K E, Q = 1, U = 1. Scope "mixed" computes both kinds and concatenates their query heads. With a cache,
mixed scope uses the groups of scope "all" for every head, and a mask restricts own-scope heads to their attribute: one large
matrix product is faster on a CPU than two small ones.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models import flash_attention
from sage_jax.models.cache import KeysValues
from sage_jax.models.config import ModelConfig
from sage_jax.models.dense import dense, fan_in_init

NEG_INF = -1e30  # finite, so that a query without any key gives 0 and not NaN
MIN_ROW_MAX = -1e20  # keeps exp(NEG_INF - maximum) at 0 for such a query

Rope = tuple[jax.Array, jax.Array]  # cos and sin, each [B, N, h / 2], or [1, N, h / 2] where all rows are at the same event


class LayerCache(NamedTuple):
    """One layer's part of a `Cache`."""

    cached: KeysValues
    partial_event: KeysValues
    length: jax.Array


class Source(NamedTuple):
    """Keys and values of one buffer: `scores` is the einsum of queries and keys; the mask broadcasts to [B, G, T, U, R, M]."""

    scores: str
    keys: jax.Array
    values: jax.Array
    mask: jax.Array


class Attention(nn.Module):
    """Causal self-attention over tokens. In as_kvhs each attribute's tokens have their own key-value projection."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rope: Rope,
        layer_cache: LayerCache | None = None,
        first: int = 0,
        segment_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """x [B, N, A, D] -> [B, N, A, D], and the keys and values of these events, each [B, K, E, N, h].

        rope: rotary tables of the N events. layer_cache: the events before them, None for none. first: attribute of
        x[:, :, 0]; if it is not 0, layer_cache.partial_event holds the earlier tokens of the event. segment_ids: int [B, N];
        attention is restricted to equal ids. None means one segment per row.
        """
        config = self.config
        D, K, h, X = config.embed_dim, config.cached_kv_heads, config.head_dim, config.num_query_groups
        Y = config.num_heads // X
        output_init = nn.initializers.normal((X * Y * h * 2 * config.num_layers) ** -0.5)
        kernel_init = fan_in_init(nn.initializers.lecun_normal())
        query = self.param("query", kernel_init, (D, X, Y, h)).astype(x.dtype)
        B, N, A, _ = x.shape
        E = config.keys_per_event
        if config.tokens_per_event == 1:
            first = E - 1  # the event's single token attends to all of its keys
        # Each attribute's kernel is a separate parameter: XLA would copy a slice of a joint one before each product.
        names = [f"key_value_{a}" for a in range(E)] if config.kv_sharing == "as_kvhs" else ["key_value"]
        kernels = [self.param(name, kernel_init, (D, 2, K, h)).astype(x.dtype) for name in names]
        output = self.param("output", fan_in_init(output_init, 3), (X, Y, h, D)).astype(x.dtype)

        q = apply_rope(dense(x, query), rope)
        one_token = config.tokens_per_event < E  # projected once per attribute
        sources = jnp.broadcast_to(x, (B, N, E, D)) if one_token else x
        k, v = jnp.moveaxis(_project(sources, kernels, 0 if one_token else first), 3, 0)
        k = apply_rope(k, rope).transpose(0, 3, 2, 1, 4)  # [B, K, A, N, h]
        v = v.transpose(0, 3, 2, 1, 4)
        if A < config.tokens_per_event:
            assert layer_cache is not None, "a part of an event is read into a cache only"
            k, v = (
                jax.lax.dynamic_update_slice(partial, new, (0, 0, first, 0, 0))
                for partial, new in zip(layer_cache.partial_event, (k, v), strict=True)
            )
        if config.attention_impl == "flash" and config.supports_flash_attention and layer_cache is None:
            attended = _attend_flash(q, (k, v), segment_ids, config)
        else:
            attended = _attend_in_chunks(q, (k, v), layer_cache, segment_ids, config, first)
        return dense(attended, output, 3), (k, v)


def apply_rope(x: jax.Array, rope: Rope) -> jax.Array:
    """Rotary position embedding (RoFormer, arXiv 2104.09864) of x [B, N, ..., h] by event; pairs are the two halves of h."""
    cos, sin = (part.reshape(*part.shape[:2], *(1,) * (x.ndim - 3), -1) for part in rope)
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)


def rope_frequencies(events: jax.Array, head_dim: int, base: float) -> Rope:
    """(cos, sin), each [B, N, h / 2], for the event indices [B, N]."""
    frequency = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = events.astype(jnp.float32)[:, :, None] * frequency[None, None, :]
    return jnp.cos(angle), jnp.sin(angle)


def _project(x: jax.Array, kernels: list[jax.Array], first: int) -> jax.Array:
    """x [B, N, A, D] -> [B, N, A, 2, K, h], by one shared kernel [D, 2, K, h] or by one per attribute, from `first` on."""
    if len(kernels) == 1:
        return dense(x, kernels[0])
    return jnp.stack([dense(x[:, :, a], kernels[first + a]) for a in range(x.shape[2])], axis=2)


def _attend_flash(q: jax.Array, new_kv: KeysValues, segment_ids: jax.Array | None, config: ModelConfig) -> jax.Array:
    """_attend_in_chunks without a cache, for models with `ModelConfig.supports_flash_attention`."""
    own = config.num_own_scope_groups
    parts = [flash_attention.attend_own(q[:, :, :, :own], new_kv, segment_ids)] if own else []
    if q.shape[3] > own:
        parts.append(flash_attention.attend_all(q[:, :, :, own:], new_kv, segment_ids))
    return jnp.concatenate(parts, axis=3)


def _attend_in_chunks(
    q: jax.Array,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    config: ModelConfig,
    first: int,
) -> jax.Array:
    """q [B, N, A, X, Y, h] -> [B, N, A, X, Y, h]: attends to the cache and the new keys, `query_chunk_size` events at a time.

    A chunk's scores cover the new keys up to its own last event.
    """
    N, chunk = q.shape[1], config.query_chunk_size
    if N <= chunk:
        return _attend(q, new_kv, layer_cache, segment_ids, config, 0, first)
    attend = jax.checkpoint(_attend, static_argnums=(4, 5, 6)) if config.remat == "scores" else _attend
    outs = []
    for low in range(0, N, chunk):
        high = min(low + chunk, N)
        visible_kv = new_kv[0][:, :, :, :high], new_kv[1][:, :, :, :high]
        visible_ids = None if segment_ids is None else segment_ids[:, :high]
        outs.append(attend(q[:, low:high], visible_kv, layer_cache, visible_ids, config, low, first))
    return jnp.concatenate(outs, axis=1)


def _attend(
    q: jax.Array,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    config: ModelConfig,
    low: int,
    first: int,
) -> jax.Array:
    """Attention of one chunk of queries, which begins at new event `low`. Own-scope head groups come first in X."""
    own = config.num_own_scope_groups
    if own in (0, q.shape[3]) or layer_cache is not None:
        return _attend_groups(q, own, new_kv, layer_cache, segment_ids, low, first)
    parts = [
        _attend_groups(q[:, :, :, :own], own, new_kv, layer_cache, segment_ids, low, first),
        _attend_groups(q[:, :, :, own:], 0, new_kv, layer_cache, segment_ids, low, first),
    ]
    return jnp.concatenate(parts, axis=3)


def _attend_groups(
    q: jax.Array,
    own: int,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    low: int,
    first: int,
) -> jax.Array:
    """_attend with one kind of KV group: one per attribute if all X head groups have scope own (own == X), else over all."""
    B, N, A, X, _, h = q.shape
    K, E, S = new_kv[0].shape[1:4]
    by_attribute = own == X
    G = K * E if by_attribute else K
    queries = _to_kv_groups(q, K, by_attribute)
    queries = queries * jnp.asarray(h**-0.5, q.dtype)

    def per_key(values):  # [.., E, S], a number of each key -> [.., G, 1, 1, 1, M]
        values = jnp.broadcast_to(values[:, None], (values.shape[0], K, *values.shape[1:]))
        return values.reshape(values.shape[0], G, 1, 1, 1, -1)

    # bool [X, E]: in a group over all attributes, own-scope heads attend to one.
    scopes = np.concatenate([np.eye(own, E, dtype=bool), np.ones((X - own, E), bool)])

    key_token = jnp.arange(S)[None, None, :] * E + jnp.arange(E)[None, :, None]
    query_token = ((low + jnp.arange(N))[:, None] * E + first + jnp.arange(A)[None, :]).reshape(-1)
    mask = per_key(key_token) <= query_token[None, None, :, None, None, None]  # [1, G, T, 1, 1, M]
    if segment_ids is not None:
        query_segment = jnp.repeat(segment_ids[:, low:], A, axis=1)
        key_segment = per_key(jnp.broadcast_to(segment_ids[:, None], (B, E, S)))
        mask &= key_segment == query_segment[:, None, :, None, None, None]
    keys, values = (part.reshape(B, G, -1, h) for part in new_kv)
    if own and not by_attribute:
        mask &= np.repeat(scopes, S, axis=1)[None, None, None, :, None, :]
    sources = [Source("bgturh,bgmh->bgturm", keys, values, mask)]
    if layer_cache is not None:
        keys, values = layer_cache.cached
        M, Q = values.shape[2], K * E // G
        mask = (jnp.arange(M) // Q)[None] < layer_cache.length[:, None]  # [B, M]
        mask = mask[:, None, None, None, None, :]
        if own and not by_attribute:
            mask &= jnp.tile(scopes, M // Q)[None, None, None, :, None, :]
        sources.append(Source("bgturh,bghm->bgturm", keys, values, mask))
    return _from_kv_groups(_softmax_average(queries, sources), K, by_attribute).reshape(q.shape)


def _to_kv_groups(q: jax.Array, K: int, by_attribute: bool) -> jax.Array:
    """q [B, N, A, X, Y, h] -> [B, G, T, U, R, h], so that one matrix product serves all queries of a KV group."""
    B, N, A, X, Y, h = q.shape
    q = q.reshape(B, N * A, X, K, Y // K, h)
    if by_attribute:
        return q.transpose(0, 3, 2, 1, 4, 5).reshape(B, K * X, N * A, 1, Y // K, h)
    return q.transpose(0, 3, 1, 2, 4, 5)


def _from_kv_groups(x: jax.Array, K: int, by_attribute: bool) -> jax.Array:
    """Inverse of _to_kv_groups up to a reshape: [B, G, T, U, R, h] -> [B, T, X, K, R, h]."""
    if not by_attribute:
        return x.transpose(0, 2, 3, 1, 4, 5)
    B, G, T, _, R, h = x.shape
    return x.reshape(B, K, G // K, T, R, h).transpose(0, 3, 2, 1, 4, 5)


def _softmax_average(queries: jax.Array, sources: list[Source]) -> jax.Array:
    """Scaled queries [B, G, T, U, R, h] -> attention output of the same shape, with one softmax over the keys of all sources.

    The softmax is in float32. A query without any visible key gives 0, for example the first tokens of BOS in scope own: the
    result must not depend on the capacity of the cache.
    """
    scores = []
    for source in sources:
        product = jnp.einsum(source.scores, queries, source.keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(source.mask, product, NEG_INF))
    peaks = (jax.lax.stop_gradient(part.max(axis=-1, keepdims=True)) for part in scores)
    peak = functools.reduce(jnp.maximum, peaks, jnp.float32(MIN_ROW_MAX))
    total, out = jnp.float32(0), jnp.float32(0)
    for part, source in zip(scores, sources, strict=True):
        weights = jnp.exp(part - peak)
        total += weights.sum(axis=-1, keepdims=True)
        weights = weights.astype(source.values.dtype)
        out += jnp.einsum("bgturm,bgmh->bgturh", weights, source.values, preferred_element_type=jnp.float32)
    return (out / jnp.maximum(total, 1e-30)).astype(queries.dtype)
