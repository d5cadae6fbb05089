"""Attention with shared key-value heads: mha, gqa, mqa and as_kvhs are one module.

Shapes: B batch, N events, A tokens of an event in this call (one for each attribute, or one alone while decoding or where an
event is one token), T = N A tokens, S keys, K key-value heads per key, L lanes, D model width, h head width. Query heads come
as X groups of Y = K V: of a lane's U V heads, U are of different groups. "All A" are the keys that an event has, one for each
token, or in as_kvhs for each attribute.

A lane is one set of keys and values with the query heads that read it. Scope all has K lanes of all tokens; scope own has
K lanes for each attribute, of that attribute's tokens only, and a group of heads for each attribute, so that the heads of each
can be shared out among devices alike. Scope mixed has both kinds; behind a cache, whose lanes hold all
tokens, its own heads are rows of them too, deaf to the other attributes: on two CPU cores one product of more rows was up to
1.3 times as fast as two, and never clearly slower. Everything below the projections is the same for all.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models import fused
from sage_jax.models.cache import KEYS_EVENTS, KeysValues
from sage_jax.models.config import ModelConfig
from sage_jax.models.product import as_matrix, product

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
    def __call__(self, x, rotation, past: Past | None = None, first: int = 0, pieces: jax.Array | None = None):
        """x [B, N, A, D] -> [B, N, A, D], and the keys and values of these events, each [B, K, all A, N, h].

        rotation: (cos, sin) [N, h / 2] of the events. past: what came before them, None for nothing. first: the attribute of
        x[:, :, 0]; where that is not 0, the tokens before it are past.pending. pieces: int [B, N], of each event the piece whose
        events alone it hears; None for one piece.
        """
        config = self.config
        D, K, h, X = config.width, config.cached_heads, config.head_width, config.head_groups
        Y = config.heads // X
        last = nn.initializers.normal((X * Y * h * 2 * config.layers) ** -0.5)
        dense = as_matrix(nn.initializers.lecun_normal())
        query = self.param("query", dense, (D, X, Y, h)).astype(x.dtype)
        B, N, A, _ = x.shape
        keys_per_event = config.keys_per_event
        if config.tokens_per_event == 1:
            first = keys_per_event - 1  # its one token hears all that the event has
        # A kernel for each attribute is a parameter of its own: XLA copies a slice of a larger one before each product.
        specialised = [f"key_value_{a}" for a in range(keys_per_event)]
        names = specialised if config.sharing == "as_kvhs" else ["key_value"]
        kernels = [self.param(name, dense, (D, 2, K, h)).astype(x.dtype) for name in names]
        output = self.param("output", as_matrix(last, 3), (X, Y, h, D)).astype(x.dtype)

        q = rotate(product(x, query), rotation)
        of_event = config.tokens_per_event < keys_per_event
        sources = jnp.broadcast_to(x, (B, N, keys_per_event, D)) if of_event else x
        k, v = jnp.moveaxis(_project(sources, kernels, 0 if of_event else first), 3, 0)
        k = rotate(k, rotation).transpose(0, 3, 2, 1, 4)  # [B, K, A, N, h]
        v = v.transpose(0, 3, 2, 1, 4)
        if A < config.tokens_per_event:
            k, v = (
                jax.lax.dynamic_update_slice(pending, new, (0, 0, first, 0, 0))
                for pending, new in zip(past.pending, (k, v), strict=True)
            )
        fuses = config.attention == "fused" or config.attention == "auto" and fused.has_kernel(x.dtype, h)
        attend = _attend_fused if fuses and config.can_fuse and past is None else _attend_in_blocks
        mixed = attend(q, (k, v), past, pieces, config, first)
        return product(mixed, output, 3), (k, v)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary positions (RoFormer, arXiv 2104.09864) over events: x [B, N, ..., h], the two halves of h as pairs."""
    cos, sin = (part.reshape(1, len(part), *(1,) * (x.ndim - 3), -1) for part in rotation)
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)


def rotations(events: jax.Array, head_width: int, base: float) -> tuple[jax.Array, jax.Array]:
    """(cos, sin), each [N, h / 2], of the event numbers [N]."""
    frequency = base ** (-jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    angle = events.astype(jnp.float32)[:, None] * frequency[None, :]
    return jnp.cos(angle), jnp.sin(angle)


def _project(x: jax.Array, kernels: list[jax.Array], first: int) -> jax.Array:
    """x [B, N, A, D] through the one kernel [D, 2, K, h] for all, or through each attribute's own -> [B, N, A, 2, K, h]."""
    if len(kernels) == 1:
        return product(x, kernels[0])
    return jnp.stack([product(x[:, :, a], kernels[first + a]) for a in range(x.shape[2])], axis=2)


def _attend_fused(q, fresh: KeysValues, past: None, pieces, config: ModelConfig, first: int):
    """As _attend_in_blocks, for models that `ModelConfig.can_fuse` is true of."""
    own = config.own_groups
    parts = [fused.attend_own(q[:, :, :, :own], fresh, pieces)] if own else []
    if q.shape[3] > own:
        parts.append(fused.attend_all(q[:, :, :, own:], fresh, pieces))
    return jnp.concatenate(parts, axis=3)


def _attend_in_blocks(q, fresh: KeysValues, past: Past | None, pieces, config: ModelConfig, first: int):
    """q [B, N, A, X, Y, h] over what is past and over itself -> [B, N, A, X, Y, h], `query_block` events at a time.

    A block meets no fresh key that is later than its last event at all.
    """
    N, block = q.shape[1], config.query_block
    if N <= block:
        return _attend(q, fresh, past, pieces, config, 0, first)
    attend = jax.checkpoint(_attend, static_argnums=(4, 5, 6)) if config.recompute == "attention" else _attend
    outs = []
    for low in range(0, N, block):
        high = min(low + block, N)
        keys_values = tuple(part[:, :, :, :high] for part in fresh)
        so_far = None if pieces is None else pieces[:, :high]
        outs.append(attend(q[:, low:high], keys_values, past, so_far, config, low, first))
    return jnp.concatenate(outs, axis=1)


def _attend(q, fresh: KeysValues, past: Past | None, pieces, config: ModelConfig, low: int, first: int):
    """One block of queries, the first of which belongs to fresh event `low`; the groups of scope own come first."""
    own = config.own_groups
    if own in (0, q.shape[3]) or (past is not None and past.cached is not None):
        return _attend_lanes(q, own, fresh, past, pieces, low, first)
    parts = [
        _attend_lanes(q[:, :, :, :own], own, fresh, past, pieces, low, first),
        _attend_lanes(q[:, :, :, own:], 0, fresh, past, pieces, low, first),
    ]
    return jnp.concatenate(parts, axis=3)


def _attend_lanes(q, own: int, fresh: KeysValues, past: Past | None, pieces, low: int, first: int):
    """As _attend, in lanes of all tokens; or in lanes of one attribute, where all groups are `own` ones."""
    B, N, A, X, _, h = q.shape
    K, attributes, S = fresh[0].shape[1:4]
    by_attribute = own == X
    lanes = K * attributes if by_attribute else K
    rows = _to_lanes(q, K, by_attribute)
    rows = rows * jnp.asarray(h**-0.5, q.dtype)

    def of_keys(numbers):  # [.., all A, S] -> [.., L, 1, 1, 1, keys of the lane], a number or flag for each key
        numbers = jnp.broadcast_to(numbers[:, None], (numbers.shape[0], K, *numbers.shape[1:]))
        return numbers.reshape(numbers.shape[0], lanes, 1, 1, 1, -1)

    def is_heard(S):  # [1, 1, 1, U, 1, keys of the lane]: own heads in a lane of all tokens hear one attribute
        if by_attribute or not own:
            return True
        heard = np.concatenate([np.eye(own, dtype=bool), np.ones((X - own, own), bool)])
        return jnp.broadcast_to(heard[:, :, None], (X, own, S)).reshape(1, 1, 1, X, 1, -1)

    key_token = jnp.arange(S)[None, None, :] * attributes + jnp.arange(attributes)[None, :, None]
    query_token = ((low + jnp.arange(N))[:, None] * attributes + first + jnp.arange(A)[None, :]).reshape(-1)
    seen = of_keys(key_token) <= query_token[None, None, :, None, None, None]  # [1, L, T, 1, 1, keys]
    if past is not None:
        key_event = jnp.broadcast_to(past.length + jnp.arange(S), (1, attributes, S))
        seen &= of_keys(key_event) >= past.start[:, None, None, None, None, None]
    if pieces is not None:
        of_queries = jnp.repeat(pieces[:, low:], A, axis=1)
        seen &= of_keys(jnp.broadcast_to(pieces[:, None], (B, attributes, S))) == of_queries[:, None, :, None, None, None]
    keys, values = (part.reshape(B, lanes, -1, h) for part in fresh)
    sources = [("bltuvh,blsh->bltuvs", keys, values, seen & is_heard(S))]
    if past is not None and past.cached is not None:
        S = past.cached[0].shape[KEYS_EVENTS]
        key_event = of_keys(jnp.broadcast_to(jnp.arange(S), (1, attributes, S)))
        seen = (key_event < past.length) & (key_event >= past.start[:, None, None, None, None, None])
        keys, values = (part.reshape(B, lanes, *shape) for part, shape in zip(past.cached, ((h, -1), (-1, h)), strict=True))
        sources.append(("bltuvh,blhs->bltuvs", keys, values, seen & is_heard(S)))
    return _from_lanes(_softmax_average(rows, sources), K, by_attribute).reshape(q.shape)


def _to_lanes(q, K: int, by_attribute: bool):
    """q [B, N, A, X, Y, h] -> [B, L, T, U, V, h]: one product serves all tokens and heads of a lane."""
    B, N, A, X, Y, h = q.shape
    q = q.reshape(B, N * A, X, K, Y // K, h)
    if by_attribute:
        return q.transpose(0, 3, 2, 1, 4, 5).reshape(B, K * X, N * A, 1, Y // K, h)
    return q.transpose(0, 3, 1, 2, 4, 5)


def _from_lanes(rows, K: int, by_attribute: bool):
    """_to_lanes undone: [B, L, T, U, V, h] -> [B, T, X, K, V, h]."""
    if not by_attribute:
        return rows.transpose(0, 2, 3, 1, 4, 5)
    B, L, T, _, V, h = rows.shape
    return rows.reshape(B, K, L // K, T, V, h).transpose(0, 3, 2, 1, 4, 5)


def _softmax_average(rows, sources):
    """rows [B, L, T, U, V, h], scaled, over all sources -> [B, L, T, U, V, h].

    sources: (the product of rows and keys as an einsum, keys, values [B, L, S, h], seen broadcastable to [B, L, T, U, V, S]).
    The softmax is in float32. A row that sees no key gives 0: so the first tokens of BOS, in scope own, have a value that
    does not depend on how much room the cache has.
    """
    scores = []
    for product_of_keys, keys, _, seen in sources:
        of_source = jnp.einsum(product_of_keys, rows, keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(seen, of_source, MASKED))
    peaks = (jax.lax.stop_gradient(part.max(axis=-1, keepdims=True)) for part in scores)
    peak = functools.reduce(jnp.maximum, peaks, LEAST)
    total, out = 0.0, 0.0
    for part, (_, _, values, _) in zip(scores, sources, strict=True):
        weights = jnp.exp(part - peak)
        total += weights.sum(axis=-1, keepdims=True)
        out += jnp.einsum("bltuvs,blsh->bltuvh", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    return (out / jnp.maximum(total, 1e-30)).astype(rows.dtype)
