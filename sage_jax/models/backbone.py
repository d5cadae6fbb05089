"""The base class of all models: an embedding table and an output head for each attribute, and the layers between them.

Shapes as in attention.py.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.attention import Attention, Rope, rope_frequencies
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.dense import DENSE_OUTPUT, dense, fan_in_init, parameter
from sage_jax.models.dropout import drop, dropout_key
from sage_jax.models.instruments import INSTRUMENT, PartsTable, instrument_table, is_plain, pad_logits, predicted_sizes
from sage_jax.models.layout import KeysValues, LayerCache

# Chooses a token [B] from the tokens of the event so far and its logits [B, V].
ChooseToken = Callable[[list[jax.Array], jax.Array], jax.Array]

# What the backward pass keeps of each layer. ModelConfig.remat has two more values: "none", and "scores" (see attention.py).
REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(DENSE_OUTPUT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class RMSNorm(nn.Module):
    """x / rms(x) with a learned scale (arXiv 1910.07467), computed in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = parameter(self, "scale", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + 1e-6) * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class GatedMLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): silu(gate) * up, then down."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        D, F = self.config.embed_dim, self.config.mlp_dim
        gate_up = parameter(self, "gate_up", fan_in_init(nn.initializers.lecun_normal()), (D, 2, F)).astype(x.dtype)
        down_init = nn.initializers.normal((F * 2 * self.config.num_layers) ** -0.5)
        down = parameter(self, "down", down_init, (F, D)).astype(x.dtype)
        gate, up = jnp.moveaxis(dense(x, gate_up), -2, 0)
        return dense(nn.silu(gate) * up, down)


class Block(nn.Module):
    """One pre-norm layer: attention and a gated MLP, each with a residual connection."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, rope: Rope, layer_cache: LayerCache | None, first: int, segment_ids: jax.Array | None = None
    ) -> tuple[jax.Array, KeysValues]:
        """x [B, N, A, D] -> [B, N, A, D], and the events' keys and values. Arguments as in `Attention`."""
        normed = RMSNorm(name="attention_norm")(x)
        attended, new_kv = Attention(self.config, name="attention")(normed, rope, layer_cache, first, segment_ids)
        x = x + self.dropped(attended)
        return x + self.dropped(GatedMLP(self.config, name="mlp")(RMSNorm(name="mlp_norm")(x))), new_kv

    def dropped(self, update: jax.Array) -> jax.Array:
        """What a residual connection adds."""
        rate = self.config.dropout_residual
        return drop(update, rate, dropout_key(self, rate))


class Backbone(nn.Module):
    """Base class of all models. Stateless: the cache is an argument and a return value.

    `__call__` returns teacher-forced logits. `prefill`, `next_logits` and `decode_step` are the decoding interface. They pass
    on a carry: model-specific state from which the next token is predicted.
    """

    config: ModelConfig
    embedding_scale: ClassVar[float] = 0.02  # standard deviation of the initial embeddings

    def setup(self):
        self.make_embeddings()
        config = self.config
        self.heads = [
            parameter(self, f"head_{a}", nn.initializers.normal(config.embed_dim**-0.5), (config.embed_dim, size))
            for a, size in enumerate(predicted_sizes(config))
        ]
        self.blocks = [Block(config, name=f"block_{layer}") for layer in range(config.num_layers)]
        self.norm = RMSNorm()

    def make_embeddings(self):
        """Creates the embedding table [V, D] of each attribute."""
        attributes = range(self.config.num_attributes)
        self.embeddings = [self.embedding_table(f"embedding_{a}", a, self.embedding_scale) for a in attributes]

    def embedding_table(self, name: str, attribute: int, scale: float) -> jax.Array | PartsTable:
        """The table [V, D] of an attribute, for `look_up`. If it is a sum of parts, their names begin with `name`."""
        config, init = self.config, nn.initializers.normal(scale)
        if attribute == INSTRUMENT and not is_plain(config):
            return instrument_table(config, lambda part, shape: parameter(self, name + part, init, shape), config.embed_dim)
        return parameter(self, name, init, (config.vocab_sizes[attribute], config.embed_dim))

    def logits(self, hidden: jax.Array, attribute: int) -> jax.Array:
        """Hidden states [..., D] -> float32 logits [..., V] of the next token, which belongs to `attribute`."""
        head = self.heads[attribute].astype(hidden.dtype)
        logits = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
        return pad_logits(self.config, logits) if self.config.roles and attribute == INSTRUMENT else logits

    # Decoding. Rows of the cache have their own lengths. `prefill` and `decode_step` write keys and values after them and leave
    # the lengths to the caller, who knows which events count.

    def start_carry(self, before: jax.Array) -> Any:
        """The carry of rows whose next event is given, so that nothing is predicted from it.

        before: int32 [B, C, A], the events before the next one, PAD where there are none.
        """
        raise NotImplementedError

    def prefill(self, events: jax.Array, before: jax.Array, count: jax.Array, cache: Cache) -> tuple[Any, Cache]:
        """Reads whole events [B, N, A], of which the first `count` (int32 [B], at least 1) of a row are real.

        before: as in `start_carry`. Returns the carry after the last real event, and the cache with the lengths of before.
        """
        raise NotImplementedError

    def prefill_each(self, events: jax.Array, before: jax.Array, cache: Cache) -> tuple[Any, Cache]:
        """As `prefill`, but returns the carry after each of the events, [B, N, ...]."""
        raise NotImplementedError

    def next_logits(self, carry: Any, attribute: int) -> jax.Array:
        """Float32 logits [B, V] of the next token, which belongs to `attribute`; with any leading axes that the carry has."""
        raise NotImplementedError

    def decode_step(self, carry: Any, cache: Cache, token: jax.Array, attribute: int) -> tuple[Any, Cache]:
        """Reads the chosen token [B] of `attribute`; returns the next carry and the cache with the lengths of before.

        The caller must not exceed the capacity of the cache: a write past the end overwrites the last event.
        """
        raise NotImplementedError

    def event_step(self, carry: Any, cache: Cache, choose: ChooseToken) -> tuple[Any, Cache, jax.Array]:
        """Reads one more event, token by token, and returns it as int32 [B, A]. A model with a kernel for it overrides this."""
        event = []
        for attribute in range(self.config.num_attributes):
            event.append(choose(event, self.next_logits(carry, attribute)))
            carry, cache = self.decode_step(carry, cache, event[-1], attribute)
        return carry, cache, jnp.stack(event, axis=1)

    def apply_layers(
        self, x: jax.Array, cache: Cache | None, first: int = 0, segment_ids: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """x [B, N, A, D] -> final hidden states [B, N, A, D], and each layer's keys and values for `Cache.write`.

        first: attribute of x[:, :, 0]. segment_ids: int [B, N]; attention is restricted to equal ids. None means one segment
        per row.
        """
        config = self.config
        x = drop(x, config.dropout_embedding, dropout_key(self, config.dropout_embedding))
        length = jnp.zeros(1, jnp.int32) if cache is None else cache.length
        rope = rope_frequencies(length[:, None] + jnp.arange(x.shape[1])[None, :], config.head_dim, config.rope_theta)
        apply = lambda block, x, layer_cache: block(x, rope, layer_cache, first, segment_ids)
        if cache is None and config.remat in REMAT_POLICIES:
            apply = nn.remat(apply, policy=REMAT_POLICIES[config.remat])
        new_kv = []
        for layer, block in enumerate(self.blocks):
            layer_cache = None if cache is None else cache.layer(layer)
            x, keys_values = apply(block, x, layer_cache)
            new_kv.append(keys_values)
        return self.norm(x), tuple(new_kv)


def at_event(hidden: jax.Array, count: jax.Array) -> jax.Array:
    """hidden [B, N, ...] -> [B, ...] at each row's event count - 1, for int32 count [B]."""
    return jax.vmap(lambda row, index: jax.lax.dynamic_index_in_dim(row, index, keepdims=False))(hidden, count - 1)
