"""The flat transformer: one backbone position per token, tokens predicted attribute by attribute. Shapes as in attention.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.backbone import Backbone, at_event
from sage_jax.models.cache import Cache
from sage_jax.models.dense import parameter
from sage_jax.models.instruments import look_up


class Transformer(Backbone):
    """A decoder over tokens. Its carry is the hidden state [B, D] of the last token."""

    def make_embeddings(self):
        super().make_embeddings()
        config = self.config
        self.attribute_embedding = parameter(
            self, "attribute_embedding", nn.initializers.normal(0.02), (config.num_attributes, config.embed_dim)
        )

    def __call__(self, events: jax.Array, segment_ids: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """events [B, N, A] -> float32 logits [B, N, V] of each attribute. `segment_ids` as in `apply_layers`.

        At position n, logits of the first attribute are for event n + 1, those of the other attributes for event n.
        """
        x, _ = self.apply_layers(self._embed(events, 0), None, segment_ids=segment_ids)
        A = self.config.num_attributes
        return tuple(self.logits(x[:, :, a - 1], a) for a in range(A))

    def start_carry(self, before: jax.Array) -> jax.Array:
        return jnp.zeros((len(before), self.config.embed_dim), self.config.dtype)

    def prefill(self, events: jax.Array, before: jax.Array, count: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        hidden, cache = self.prefill_each(events, before, cache)
        return at_event(hidden, count), cache

    def prefill_each(self, events: jax.Array, before: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        hidden, cache = self._read(events, cache)
        return hidden[:, :, -1], cache

    def next_logits(self, carry: jax.Array, attribute: int) -> jax.Array:
        return self.logits(carry, attribute)

    def decode_step(self, carry: jax.Array, cache: Cache, token: jax.Array, attribute: int) -> tuple[jax.Array, Cache]:
        hidden, cache = self._read(token[:, None, None], cache, attribute)
        return hidden[:, 0, 0], cache

    def _read(self, tokens: jax.Array, cache: Cache, first: int = 0) -> tuple[jax.Array, Cache]:
        """Reads tokens [B, N, A] of the attributes from `first` on, after the events of the cache. N is 1 for partial events.

        Returns the hidden states [B, N, A, D] and the cache, in which the events are once their last attribute is read.
        """
        x, new_kv = self.apply_layers(self._embed(tokens, first), cache, first)
        is_complete = first + tokens.shape[2] == self.config.num_attributes
        return x, cache.write(new_kv, after=x) if is_complete else cache.replace(partial_event=new_kv)

    def _embed(self, tokens: jax.Array, first: int) -> jax.Array:
        """tokens [B, N, A] of the attributes from `first` on -> [B, N, A, D]."""
        parts = [
            look_up(self.embeddings[first + a], tokens[:, :, a]) + self.attribute_embedding[first + a][None, None]
            for a in range(tokens.shape[2])
        ]
        return jnp.stack(parts, axis=2).astype(self.config.dtype)
