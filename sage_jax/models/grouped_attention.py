"""Attention by KV group in plain JAX, over new keys and over a cache: what kernels are compared with.

Shapes as in attention.py.

A KV group is one set of keys and values together with the query heads that attend to it. Scope "all" has one KV group per KV
head, over the tokens of all attributes: G = K, Q = E, U = X. Scope "own" has one per KV head and attribute, over that
attribute's tokens: G = K E, Q = 1, U = 1. Scope "mixed" computes both kinds and concatenates their query heads. With a cache,
mixed scope uses the groups of scope "all" for every head, and a mask restricts own-scope heads to their attribute: one large
matrix product is faster on a CPU than two small ones.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.dropout import drop
from sage_jax.models.layout import Buffers, KeysValues, LayerCache, update_rows

NEG_INF = -1e30  # finite, so that a query without any key gives 0 and not NaN
MIN_ROW_MAX = -1e20  # keeps exp(NEG_INF - maximum) at 0 for such a query
MANY_KEYS = 1 << 21  # numbers of a buffer of keys
KEYS_AXIS, VALUES_AXIS = 3, 2  # the axis of M in the key and value buffers


@dataclasses.dataclass(frozen=True)
class GroupedLayout:
    """For each layer keys [B, G, h, M] and values [B, G, M, h] for M = S Q: the Q keys of an event are neighbours.

    Both buffers are thus right-hand sides of their matrix products as they are. Had Q and S an axis each, a TPU, which pads the
    last two axes to whole tiles, would copy the buffers to join them.
    """

    num_layers: int
    kv_groups: tuple[int, int]
    head_dim: int

    @classmethod
    def of(cls, config: ModelConfig) -> "GroupedLayout":
        return cls(config.num_layers, config.kv_groups, config.head_dim)

    def shapes(self, batch: int, max_events: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        (G, Q), h = self.kv_groups, self.head_dim
        return (((batch, G, h, max_events * Q), (batch, G, max_events * Q, h)),) * self.num_layers

    def max_events(self, buffers: Buffers) -> int:
        return buffers[0][0].shape[KEYS_AXIS] // self.kv_groups[1]

    def layer(self, buffers: Buffers, number: int) -> KeysValues:
        return buffers[number]

    def append(self, buffers: Buffers, new: Buffers, length: jax.Array, slots: jax.Array | None = None) -> Buffers:
        return tuple(self._append(*pair, length, slots) for pair in zip(buffers, new, strict=True))

    def _append(self, buffers: KeysValues, new: KeysValues, length: jax.Array, slots: jax.Array | None) -> KeysValues:
        place = length * self.kv_groups[1]
        new_keys, new_values = map(self._by_group, new)
        return (
            update_rows(buffers[0], new_keys.swapaxes(2, 3), place, KEYS_AXIS, slots),
            update_rows(buffers[1], new_values, place, VALUES_AXIS, slots),
        )

    def _by_group(self, new: jax.Array) -> jax.Array:
        """[B, K, E, N, h] -> [B, G, N Q, h]."""
        (B, *_, h), (G, Q) = new.shape, self.kv_groups
        return new.reshape(B, G, Q, -1, h).swapaxes(2, 3).reshape(B, G, -1, h)


@dataclasses.dataclass(frozen=True)
class StackedLayout(GroupedLayout):
    """One pair of buffers, keys and values [B, L, G, M, h], for a kernel of all layers (decoding/fused)."""

    def shapes(self, batch: int, max_events: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        (G, Q), h = self.kv_groups, self.head_dim
        shape = (batch, self.num_layers, G, max_events * Q, h)
        return ((shape, shape),)

    def max_events(self, buffers: Buffers) -> int:
        return buffers[0][0].shape[3] // self.kv_groups[1]

    def layer(self, buffers: Buffers, number: int) -> KeysValues:
        keys, values = buffers[0]
        return keys[:, number].swapaxes(2, 3), values[:, number]

    def append(self, buffers: Buffers, new: Buffers, length: jax.Array, slots: jax.Array | None = None) -> Buffers:
        def append(buffer: jax.Array, parts: Sequence[jax.Array]) -> jax.Array:
            stacked = jnp.stack([self._by_group(part) for part in parts], axis=1)  # [B, L, G, N Q, h]
            return update_rows(buffer, stacked, length * self.kv_groups[1], 3, slots)

        keys, values = (append(buffer, [pair[index] for pair in new]) for index, buffer in enumerate(buffers[0]))
        return ((keys, values),)


class Source(NamedTuple):
    """Keys and values of one buffer: `scores` is the einsum of queries and keys; the mask broadcasts to [B, G, T, U, R, M]."""

    scores: str
    keys: jax.Array
    values: jax.Array
    mask: jax.Array


def attend_grouped(
    q: jax.Array,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    config: ModelConfig,
    first: int,
    drop_key: jax.Array | None = None,
) -> jax.Array:
    """q [B, N, A, X, Y, h] -> [B, N, A, X, Y, h]: attends to the cache and the new keys, `query_chunk_size` events at a time.

    A chunk's scores cover the new keys up to its own last event. drop_key: for dropout of the weights; None drops nothing.
    """
    N, chunk = q.shape[1], config.query_chunk_size
    if N <= chunk:
        return _attend(q, new_kv, layer_cache, segment_ids, config, 0, first, drop_key)
    attend = jax.checkpoint(_attend, static_argnums=(4, 5, 6)) if config.remat == "scores" else _attend
    outs = []
    for low in range(0, N, chunk):
        high = min(low + chunk, N)
        visible_kv = new_kv[0][:, :, :, :high], new_kv[1][:, :, :, :high]
        visible_ids = None if segment_ids is None else segment_ids[:, :high]
        chunk_key = None if drop_key is None else jax.random.fold_in(drop_key, low)
        outs.append(attend(q[:, low:high], visible_kv, layer_cache, visible_ids, config, low, first, chunk_key))
    return jnp.concatenate(outs, axis=1)


def _attend(
    q: jax.Array,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    config: ModelConfig,
    low: int,
    first: int,
    drop_key: jax.Array | None,
) -> jax.Array:
    """Attention of one chunk of queries, which begins at new event `low`. Own-scope head groups come first in X."""
    own = config.num_own_scope_groups
    if own in (0, q.shape[3]) or layer_cache is not None:
        return _attend_groups(q, own, new_kv, layer_cache, segment_ids, config, low, first, drop_key)
    of_own, of_all = (None, None) if drop_key is None else jax.random.split(drop_key)
    parts = [
        _attend_groups(q[:, :, :, heads], groups, new_kv, None, segment_ids, config, low, first, key)
        for heads, groups, key in ((slice(own), own, of_own), (slice(own, None), 0, of_all))
    ]
    return jnp.concatenate(parts, axis=3)


def _attend_groups(
    q: jax.Array,
    own: int,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    config: ModelConfig,
    low: int,
    first: int,
    drop_key: jax.Array | None,
) -> jax.Array:
    """_attend with one kind of KV group: one per attribute if all X head groups have scope own (own == X), else over all."""
    B, N, A, X, _, h = q.shape
    K, E, S = new_kv[0].shape[1:4]
    by_attribute = own == X
    if by_attribute and E < X:  # of a part of an event; each attribute has a KV group
        new_kv = jax.tree.map(lambda part: jnp.pad(part, [(0, X - E) if axis == 2 else (0, 0) for axis in range(5)]), new_kv)
        E = X
    G = K * E if by_attribute else K
    queries = _to_kv_groups(q, K, by_attribute)
    queries = queries * jnp.asarray(h**-0.5, q.dtype)

    def per_key(values):  # [.., E, S], a number of each key -> [.., G, 1, 1, 1, M]
        values = jnp.broadcast_to(values[:, None], (values.shape[0], K, *values.shape[1:]))
        return values.reshape(values.shape[0], G, 1, 1, 1, -1)

    def in_scope(attribute):  # [M], that of each key, -> bool [1, 1, 1, X, 1, M]: own-scope heads attend to one
        group = np.arange(X)[:, None]
        return ((group >= own) | (group == attribute[None, :]))[None, None, None, :, None, :]

    key_token = jnp.arange(S)[None, None, :] * E + jnp.arange(E)[None, :, None]
    query_token = ((low + jnp.arange(N))[:, None] * E + first + jnp.arange(A)[None, :]).reshape(-1)
    mask = per_key(key_token) <= query_token[None, None, :, None, None, None]  # [1, G, T, 1, 1, M]
    if segment_ids is not None:
        query_segment = jnp.repeat(segment_ids[:, low:], A, axis=1)
        key_segment = per_key(jnp.broadcast_to(segment_ids[:, None], (B, E, S)))
        mask &= key_segment == query_segment[:, None, :, None, None, None]
    keys, values = (part.reshape(B, G, -1, h) for part in new_kv)
    if own and not by_attribute:
        mask &= in_scope(np.repeat(np.arange(E), S))
    sources = [Source("bgturh,bgmh->bgturm", keys, values, mask)]
    if layer_cache is not None:
        keys, values = layer_cache.cached
        M, Q = values.shape[2], config.kv_groups[1]
        mask = jnp.arange(M)[None, :] < layer_cache.length[:, None] * Q  # [B, M]
        mask = mask[:, None, None, None, None, :]
        if own and not by_attribute:  # in arithmetic, which a CPU does for many keys at once; a table would be read key by key
            mask &= in_scope(jnp.arange(M) % Q)
        sources.append(Source("bgturh,bghm->bgturm", keys, values, mask))
    dropped = functools.partial(drop, rate=config.dropout_attention, key=drop_key)
    return _from_kv_groups(_softmax_average(queries, sources, dropped), K, by_attribute).reshape(q.shape)


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


def _softmax_average(queries: jax.Array, sources: list[Source], dropped: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Scaled queries [B, G, T, U, R, h] -> attention output of the same shape, with one softmax over the keys of all sources.

    The softmax is in float32. A query without any visible key gives 0, for example the first tokens of BOS in scope own: the
    result must not depend on the capacity of the cache. dropped: dropout of the weights; it does not change their sum.
    """
    scores = []
    for source in sources:
        product = jnp.einsum(source.scores, _apart(queries, source), source.keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(source.mask, product, NEG_INF))
    peaks = (jax.lax.stop_gradient(part.max(axis=-1, keepdims=True)) for part in scores)
    peak = functools.reduce(jnp.maximum, peaks, jnp.float32(MIN_ROW_MAX))
    total, out = jnp.float32(0), jnp.float32(0)
    for part, source in zip(scores, sources, strict=True):
        weights = jnp.exp(part - peak)
        total += weights.sum(axis=-1, keepdims=True)
        weights = dropped(weights).astype(source.values.dtype)
        out += jnp.einsum("bgturm,bgmh->bgturh", weights, source.values, preferred_element_type=jnp.float32)
    return (out / jnp.maximum(total, 1e-30)).astype(queries.dtype)


def _apart(queries: jax.Array, source: Source) -> jax.Array:
    """The queries, on a GPU as an array of their own where the source has many keys.

    XLA for GPUs makes one product of two that share an array, and copies the keys of both for it. For few keys that takes less
    time than the kernels that it saves: a launch is about a microsecond, in which an H100 copies 1.6 MB.
    """
    if source.keys.size < MANY_KEYS:
        return queries
    barrier = jax.lax.optimization_barrier
    return jax.lax.platform_dependent(queries, cuda=barrier, rocm=barrier, default=lambda queries: queries)
