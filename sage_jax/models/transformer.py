"""The flat music transformer: a token per attribute, five to an event, predicted attribute by attribute.

Shapes as in attention.py: B batch, N events, A attributes, D model width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.attention import Attention, Past, rotations
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.product import product


class RMSNorm(nn.Module):
    """x / rms(x) with a learned scale (arXiv 1910.07467), computed in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(mean_square + 1e-6) * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class GatedMLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): silu(gate) * up, then down."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, hidden = self.config.width, self.config.mlp_width
        gate_up = self.param("gate_up", nn.initializers.lecun_normal(), (width, 2 * hidden)).astype(x.dtype)
        last = nn.initializers.normal((hidden * 2 * self.config.layers) ** -0.5)
        down = self.param("down", last, (hidden, width)).astype(x.dtype)
        gate, up = jnp.split(product(x, gate_up), 2, axis=-1)
        return product(nn.silu(gate) * up, down)


class Block(nn.Module):
    """One layer: attention and a gated MLP, each added to what comes in."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rotation, past: Past | None, first: int):
        mixed, fresh = Attention(self.config, name="attention")(RMSNorm(name="attention_norm")(x), rotation, past, first)
        x = x + mixed
        return x + GatedMLP(self.config, name="mlp")(RMSNorm(name="mlp_norm")(x)), fresh


class Transformer(nn.Module):
    """Events in, logits of the next token of each out. Stateless: the cache is an argument and a return value."""

    config: ModelConfig

    def setup(self):
        config = self.config
        self.embeddings = [
            self.param(f"embedding_{a}", nn.initializers.normal(0.02), (size, config.width))
            for a, size in enumerate(config.vocab_sizes)
        ]
        self.attribute_embedding = self.param(
            "attribute_embedding", nn.initializers.normal(0.02), (config.num_attributes, config.width)
        )
        self.heads = [
            self.param(f"head_{a}", nn.initializers.normal(config.width**-0.5), (config.width, size))
            for a, size in enumerate(config.vocab_sizes)
        ]
        self.blocks = [Block(config, name=f"block_{layer}") for layer in range(config.layers)]
        self.norm = RMSNorm()

    def __call__(self, events: jax.Array) -> tuple[jax.Array, ...]:
        """events [B, N, A] -> float32 logits [B, N, V_a] of each attribute a.

        Those of the attributes after the first are for the same event, those of the first are for the event after it.
        """
        x, _ = self._run(events, None, 0)
        A = self.config.num_attributes
        return tuple(self.logits(x[:, :, a - 1], a) for a in range(A))

    def extend(self, tokens: jax.Array, cache: Cache, first: int = 0, empty: bool = False) -> tuple[jax.Array, Cache]:
        """Reads tokens [B, N, A'] of the attributes `first` to `first` + A' - 1 behind what the cache holds.

        empty: that the cache holds nothing yet, so that its room need not be looked at. Returns the hidden states
        [B, N, A', D] and the cache; its length grows when the last attribute has been read. N is 1 unless whole events are
        given. The room is the caller's to watch: a full cache is overwritten at its end.
        """
        x, fresh = self._run(tokens, cache, first, empty)
        whole = first + tokens.shape[2] == self.config.num_attributes
        return x, cache.write(fresh, after=x) if whole else cache.replace(pending=fresh)

    def logits(self, hidden: jax.Array, attribute: int) -> jax.Array:
        """hidden [..., D] of the token before -> float32 logits [..., V_a]: one block of the vocabulary."""
        head = self.heads[attribute].astype(hidden.dtype)
        return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)

    def _run(self, tokens: jax.Array, cache: Cache | None, first: int, empty: bool = True):
        config = self.config
        x = jnp.stack(
            [
                jnp.take(self.embeddings[first + a], tokens[:, :, a], axis=0) + self.attribute_embedding[first + a][None, None]
                for a in range(tokens.shape[2])
            ],
            axis=2,
        ).astype(config.dtype)
        length = 0 if empty else cache.length
        rotation = rotations(length + jnp.arange(tokens.shape[1]), config.head_width, config.rope_base)
        fresh = []
        for layer, block in enumerate(self.blocks):
            past = None
            if cache is not None:
                past = Past(None if empty else cache.layers[layer], cache.pending[layer], length, cache.start)
            x, keys_values = block(x, rotation, past, first)
            fresh.append(keys_values)
        return self.norm(x), tuple(fresh)
