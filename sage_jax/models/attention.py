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
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.attend import attend
from sage_jax.models.config import ModelConfig
from sage_jax.models.dense import dense, fan_in_init, parameter
from sage_jax.models.dropout import dropout_key
from sage_jax.models.layout import KeysValues, LayerCache

Rope = tuple[jax.Array, jax.Array]  # cos and sin, each [B, N, h / 2], or [1, N, h / 2] where all rows are at the same event


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
        query = parameter(self, "query", kernel_init, (D, X, Y, h)).astype(x.dtype)
        B, N, A, _ = x.shape
        E = config.keys_per_event
        if config.tokens_per_event == 1:
            first = E - 1  # the event's single token attends to all of its keys
        # Each attribute's kernel is a separate parameter: XLA would copy a slice of a joint one before each product.
        names = [f"key_value_{a}" for a in range(E)] if config.kv_sharing == "as_kvhs" else ["key_value"]
        kernels = [parameter(self, name, kernel_init, (D, 2, K, h)).astype(x.dtype) for name in names]
        output = parameter(self, "output", fan_in_init(output_init, 3), (X, Y, h, D)).astype(x.dtype)

        q = apply_rope(dense(x, query), rope)
        one_token = config.tokens_per_event < E  # projected once per attribute
        sources = jnp.broadcast_to(x, (B, N, E, D)) if one_token else x
        k, v = jnp.moveaxis(_project(sources, kernels, 0 if one_token else first), 3, 0)
        k = apply_rope(k, rope).transpose(0, 3, 2, 1, 4)  # [B, K, A, N, h]
        v = v.transpose(0, 3, 2, 1, 4)
        if first and A < config.tokens_per_event:
            assert layer_cache and layer_cache.partial_event, "a part of an event is read into a cache only"
            k, v = (jnp.concatenate(pair, axis=2) for pair in zip(layer_cache.partial_event, (k, v), strict=True))
        drop_key = dropout_key(self, config.dropout_attention)
        attended = attend(q, (k, v), layer_cache, segment_ids, config, first, drop_key)
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
