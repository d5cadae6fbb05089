"""What every model is made of: tables of embeddings and heads for each attribute, and the layers between them.

Shapes as in attention.py: B batch, N events, A attributes, D model width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.attention import Attention, Past, rotations
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.product import PRODUCT, as_matrix, product

# What is kept of a layer, where not all of it is.
KEPT = {
    "products": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "layers": jax.checkpoint_policies.nothing_saveable,
}


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
        gate_up = self.param("gate_up", as_matrix(nn.initializers.lecun_normal()), (width, 2, hidden)).astype(x.dtype)
        last = nn.initializers.normal((hidden * 2 * self.config.layers) ** -0.5)
        down = self.param("down", last, (hidden, width)).astype(x.dtype)
        gate, up = jnp.moveaxis(product(x, gate_up), -2, 0)
        return product(nn.silu(gate) * up, down)


class Block(nn.Module):
    """One layer: attention and a gated MLP, each added to what comes in."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rotation, past: Past | None, first: int, pieces: jax.Array | None = None):
        normed = RMSNorm(name="attention_norm")(x)
        mixed, fresh = Attention(self.config, name="attention")(normed, rotation, past, first, pieces)
        x = x + mixed
        return x + GatedMLP(self.config, name="mlp")(RMSNorm(name="mlp_norm")(x)), fresh


class Backbone(nn.Module):
    """The base of all models. Stateless: the cache is an argument and a return value.

    Beside `__call__`, which tells the logits of whole pieces, a model has three methods to be decoded with, which pass on a carry,
    whatever it needs to know to foretell the next token:
      read(events [B, N, A], cache) -> carry, cache: reads whole events into a cache that holds nothing yet;
      next_logits(carry, attribute) -> float32 [B, V_a]: of the next token, which is one of `attribute`;
      feed(carry, cache, token [B], attribute) -> carry, cache: reads that token, once it is chosen.
    The room is the caller's to watch: a full cache is overwritten at its end.
    """

    config: ModelConfig
    embedding_scale = 0.02  # standard deviation of the embeddings to begin with

    def setup(self):
        self.make_embeddings()
        config = self.config
        self.heads = [
            self.param(f"head_{a}", nn.initializers.normal(config.width**-0.5), (config.width, size))
            for a, size in enumerate(config.vocab_sizes)
        ]
        self.blocks = [Block(config, name=f"block_{layer}") for layer in range(config.layers)]
        self.norm = RMSNorm()

    def make_embeddings(self):
        config = self.config
        self.embeddings = [
            self.param(f"embedding_{a}", nn.initializers.normal(self.embedding_scale), (size, config.width))
            for a, size in enumerate(config.vocab_sizes)
        ]

    def logits(self, hidden: jax.Array, attribute: int) -> jax.Array:
        """hidden [..., D] of what stands before -> float32 logits [..., V_a]: one block of the vocabulary."""
        head = self.heads[attribute].astype(hidden.dtype)
        return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)

    def through_layers(
        self, x: jax.Array, cache: Cache | None, first: int = 0, empty: bool = True, pieces: jax.Array | None = None
    ):
        """x [B, N, T, D] -> hidden states [B, N, T, D], and keys and values of these events for `Cache.write`.

        T: tokens of an event, those from attribute `first` on. empty: that the cache holds nothing yet, so that its room need
        not be looked at. pieces: int [B, N], of each event a number of the piece that it belongs to, whose events alone it hears;
        None where a row has one piece.
        """
        config = self.config
        length = 0 if empty else cache.length
        rotation = rotations(length + jnp.arange(x.shape[1]), config.head_width, config.rope_base)
        through = lambda block, x, past: block(x, rotation, past, first, pieces)
        if cache is None and config.recompute in KEPT:
            through = nn.remat(through, policy=KEPT[config.recompute])
        fresh = []
        for layer, block in enumerate(self.blocks):
            past = None
            if cache is not None:
                past = Past(None if empty else cache.layers[layer], cache.pending[layer], length, cache.start)
            x, keys_values = through(block, x, past)
            fresh.append(keys_values)
        return self.norm(x), tuple(fresh)
