"""The flat music transformer: a token per attribute, five to an event, predicted attribute by attribute.

Shapes as in attention.py: B batch, N events, A attributes, D model width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.backbone import Backbone
from sage_jax.models.cache import Cache


class Transformer(Backbone):
    """Events in, logits of the next token of each token out; the carry is the hidden state [B, D] of the last token."""

    def make_embeddings(self):
        super().make_embeddings()
        config = self.config
        self.attribute_embedding = self.param(
            "attribute_embedding", nn.initializers.normal(0.02), (config.num_attributes, config.width)
        )

    def __call__(self, events: jax.Array, pieces: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """events [B, N, A] -> float32 logits [B, N, V_a] of each attribute a; `pieces` as in `through_layers`.

        Those of the attributes after the first are for the same event, those of the first are for the event after it.
        """
        x, _ = self.through_layers(self._embed(events, 0), None, pieces=pieces)
        A = self.config.num_attributes
        return tuple(self.logits(x[:, :, a - 1], a) for a in range(A))

    def extend(self, tokens: jax.Array, cache: Cache, first: int = 0, empty: bool = False) -> tuple[jax.Array, Cache]:
        """Reads tokens [B, N, A'] of the attributes `first` to `first` + A' - 1 behind what the cache holds.

        Returns the hidden states [B, N, A', D] and the cache; its length grows when the last attribute has been read. N is 1
        unless whole events are given.
        """
        x, fresh = self.through_layers(self._embed(tokens, first), cache, first, empty)
        whole = first + tokens.shape[2] == self.config.num_attributes
        return x, cache.write(fresh, after=x) if whole else cache.replace(pending=fresh)

    def read(self, events: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        hidden, cache = self.extend(events, cache, empty=True)
        return hidden[:, -1, -1], cache

    def next_logits(self, carry: jax.Array, attribute: int) -> jax.Array:
        return self.logits(carry, attribute)

    def feed(self, carry: jax.Array, cache: Cache, token: jax.Array, attribute: int) -> tuple[jax.Array, Cache]:
        hidden, cache = self.extend(token[:, None, None], cache, attribute)
        return hidden[:, 0, 0], cache

    def _embed(self, tokens: jax.Array, first: int) -> jax.Array:
        """tokens [B, N, A'] of the attributes from `first` on -> [B, N, A', D]."""
        parts = [
            jnp.take(self.embeddings[first + a], tokens[:, :, a], axis=0) + self.attribute_embedding[first + a][None, None]
            for a in range(tokens.shape[2])
        ]
        return jnp.stack(parts, axis=2).astype(self.config.dtype)
