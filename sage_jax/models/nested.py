"""Nested decoding: the layers run once for an event, and a small decoder foretells its attributes one after another.

So the attributes of an event depend on each other, as in the flat model, at a fifth of its steps through the layers. Shapes
as in attention.py: D model width, F width of the decoder's own hidden layer.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.backbone import RMSNorm
from sage_jax.models.config import ModelConfig
from sage_jax.models.pooled import EventCarry, Pooled
from sage_jax.models.product import as_matrix, product


class ResidualDecoder(nn.Module):
    """c begins as the state; for each attribute u = c + MLP_a(norm(c)) tells its logits, and c = u + embedding of its token."""

    config: ModelConfig

    def setup(self):
        config = self.config
        D, F = config.width, config.inner_width or config.width
        dense, last = nn.initializers.lecun_normal(), nn.initializers.normal((2 * F * config.num_attributes) ** -0.5)
        attributes = range(config.num_attributes)
        self.up = [self.param(f"up_{a}", dense, (D, F)) for a in attributes]
        self.down = [self.param(f"down_{a}", last, (F, D)) for a in attributes]
        self.norms = [RMSNorm(name=f"norm_{a}") for a in attributes]
        self.output_norm = RMSNorm()

    def begin(self, hidden: jax.Array) -> jax.Array:
        return hidden

    def hidden(self, c: jax.Array, attribute: int) -> jax.Array:
        return self.output_norm(self._updated(c, attribute))

    def step(self, c: jax.Array, embedding: jax.Array, attribute: int) -> jax.Array:
        return self._updated(c, attribute) + embedding

    def _updated(self, c: jax.Array, attribute: int) -> jax.Array:
        up, down = (kernel[attribute].astype(c.dtype) for kernel in (self.up, self.down))
        return c + product(nn.gelu(product(self.norms[attribute](c), up)), down)


class RecurrentDecoder(nn.Module):
    """A gated recurrent unit (arXiv 1406.1078) that begins in the state and reads the embedding of each token."""

    config: ModelConfig

    def setup(self):
        D = self.config.width
        self.gates = self.param("gates", nn.initializers.lecun_normal(), (2 * D, 2 * D))
        self.candidate = self.param("candidate", nn.initializers.lecun_normal(), (2 * D, D))
        self.bias = self.param("bias", nn.initializers.zeros, (2 * D,))
        self.output_norm = RMSNorm()

    def begin(self, hidden: jax.Array) -> jax.Array:
        return hidden

    def hidden(self, state: jax.Array, attribute: int) -> jax.Array:
        return self.output_norm(state)

    def step(self, state: jax.Array, embedding: jax.Array, attribute: int) -> jax.Array:
        gates, candidate, bias = (kernel.astype(state.dtype) for kernel in (self.gates, self.candidate, self.bias))
        both = jnp.concatenate([state, embedding], axis=-1)
        bias = bias.reshape((1,) * (state.ndim - 1) + (-1,))
        keep, reset = jnp.split(nn.sigmoid(product(both, gates) + bias), 2, axis=-1)
        new = jnp.tanh(product(jnp.concatenate([reset * state, embedding], axis=-1), candidate))
        return keep * state + (1 - keep) * new


class AttentiveDecoder(nn.Module):
    """One layer of causal attention and an MLP over the state and the embeddings of the tokens read so far.

    An event is so short that what was read is attended to anew for each token: [.., A, D], zeros where nothing is read yet.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        D, F, H, h = config.width, config.inner_width or config.width, config.heads, config.head_width
        dense = nn.initializers.lecun_normal()
        into_heads = as_matrix(dense)
        self.places = self.param("places", nn.initializers.normal(0.02), (config.num_attributes, D))
        self.query, self.key, self.value = (self.param(name, into_heads, (D, H, h)) for name in ("query", "key", "value"))
        self.output = self.param("output", as_matrix(nn.initializers.normal((2 * H * h) ** -0.5), 2), (H, h, D))
        self.up = self.param("up", dense, (D, F))
        self.down = self.param("down", nn.initializers.normal((2 * F) ** -0.5), (F, D))
        self.attention_norm, self.mlp_norm, self.output_norm = RMSNorm(), RMSNorm(), RMSNorm()

    def begin(self, hidden: jax.Array) -> jax.Array:
        later = jnp.zeros((*hidden.shape[:-1], self.config.num_attributes - 1, hidden.shape[-1]), hidden.dtype)
        return jnp.concatenate([hidden[..., None, :], later], axis=-2)

    def hidden(self, read: jax.Array, attribute: int) -> jax.Array:
        kernel = lambda array: array.astype(read.dtype)
        here = read[..., : attribute + 1, :]
        places = self.places[: attribute + 1].reshape((1,) * (here.ndim - 2) + (attribute + 1, -1))
        x = here + kernel(places)
        normed = self.attention_norm(x)
        q = product(normed[..., -1, :], kernel(self.query)) * self.config.head_width**-0.5
        k, v = product(normed, kernel(self.key)), product(normed, kernel(self.value))
        weights = nn.softmax(jnp.einsum("...hd,...shd->...hs", q, k, preferred_element_type=jnp.float32))
        mixed = jnp.einsum("...hs,...shd->...hd", weights.astype(v.dtype), v)
        u = x[..., -1, :] + product(mixed, kernel(self.output), 2)
        u = u + product(nn.gelu(product(self.mlp_norm(u), kernel(self.up))), kernel(self.down))
        return self.output_norm(u)

    def step(self, read: jax.Array, embedding: jax.Array, attribute: int) -> jax.Array:
        return read.at[..., attribute + 1, :].set(embedding)


DECODERS = {"mlp": ResidualDecoder, "gru": RecurrentDecoder, "attention": AttentiveDecoder}


class Nested(Pooled):
    """The attributes of the next event one after another, through a decoder that begins in the state behind the last event.

    The carry's hidden is what the decoder knows, in a shape that its form decides.
    """

    def setup(self):
        super().setup()
        config = self.config
        self.decoder = DECODERS[config.inner](config)
        # Of the attributes that others follow. As large as the state that they are added to, and so not the pooled ones.
        self.inner_embeddings = [
            self.param(f"inner_embedding_{a}", nn.initializers.normal(0.5), (config.vocab_sizes[a], config.width))
            for a in config.order[:-1]
        ]

    def begin(self, hidden: jax.Array) -> EventCarry:
        return super().begin(hidden).replace(hidden=self.decoder.begin(hidden))

    def next_logits(self, carry: EventCarry, attribute: int) -> jax.Array:
        return self.logits(self.decoder.hidden(carry.hidden, self.config.order.index(attribute)), attribute)

    def step(self, carry: EventCarry, token: jax.Array, attribute: int) -> EventCarry:
        place = self.config.order.index(attribute)
        embedding = jnp.take(self.inner_embeddings[place], token, axis=0).astype(carry.hidden.dtype)
        hidden = self.decoder.step(carry.hidden, embedding, place)
        return super().step(carry, token, attribute).replace(hidden=hidden)
