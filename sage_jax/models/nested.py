"""Nested decoding: the layers run once per event, and a small event decoder predicts its attributes one after another.

The attributes of an event depend on each other, as in the flat model, with one backbone step per event instead of one per
token. Shapes as in attention.py; F is the hidden width of the event decoder, H its number of heads.

An event decoder implements three methods. `step` is the index of the attribute in the decode order:
  init_carry(hidden [..., D]) -> the decoder's state before the first attribute.
  hidden(state, step) -> [..., D], from which the attribute at `step` is predicted.
  consume(state, embedding [..., D], step) -> the state after that attribute's token.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax.models.backbone import RMSNorm
from sage_jax.models.config import ModelConfig
from sage_jax.models.dense import dense, fan_in_init, parameter
from sage_jax.models.instruments import look_up
from sage_jax.models.pooled import EventCarry, Pooled


class ResidualDecoder(nn.Module):
    """Starts with c = hidden state. At each step, u = c + MLP(norm(c)) gives the logits, and c = u + embedding of the token."""

    config: ModelConfig

    def setup(self):
        config = self.config
        D, F = config.embed_dim, config.event_decoder_dim or config.embed_dim
        up_init, down_init = nn.initializers.lecun_normal(), nn.initializers.normal((2 * F * config.num_attributes) ** -0.5)
        steps = range(config.num_attributes)
        self.up = [parameter(self, f"up_{step}", up_init, (D, F)) for step in steps]
        self.down = [parameter(self, f"down_{step}", down_init, (F, D)) for step in steps]
        self.norms = [RMSNorm(name=f"norm_{step}") for step in steps]
        self.output_norm = RMSNorm()

    def init_carry(self, hidden: jax.Array) -> jax.Array:
        return hidden

    def hidden(self, c: jax.Array, step: int) -> jax.Array:
        return self.output_norm(self._update(c, step))

    def consume(self, c: jax.Array, embedding: jax.Array, step: int) -> jax.Array:
        return self._update(c, step) + embedding

    def _update(self, c: jax.Array, step: int) -> jax.Array:
        up, down = (kernel[step].astype(c.dtype) for kernel in (self.up, self.down))
        return c + dense(nn.gelu(dense(self.norms[step](c), up)), down)


class RecurrentDecoder(nn.Module):
    """A gated recurrent unit (arXiv 1406.1078) whose initial state is the hidden state; it reads each token's embedding."""

    config: ModelConfig

    def setup(self):
        D = self.config.embed_dim
        self.gates = parameter(self, "gates", nn.initializers.lecun_normal(), (2 * D, 2 * D))
        self.candidate = parameter(self, "candidate", nn.initializers.lecun_normal(), (2 * D, D))
        self.bias = parameter(self, "bias", nn.initializers.zeros, (2 * D,))
        self.output_norm = RMSNorm()

    def init_carry(self, hidden: jax.Array) -> jax.Array:
        return hidden

    def hidden(self, state: jax.Array, step: int) -> jax.Array:
        return self.output_norm(state)

    def consume(self, state: jax.Array, embedding: jax.Array, step: int) -> jax.Array:
        gates, candidate, bias = (kernel.astype(state.dtype) for kernel in (self.gates, self.candidate, self.bias))
        joined = jnp.concatenate([state, embedding], axis=-1)
        bias = bias.reshape((1,) * (state.ndim - 1) + (-1,))
        keep, reset = jnp.split(nn.sigmoid(dense(joined, gates) + bias), 2, axis=-1)
        new = jnp.tanh(dense(jnp.concatenate([reset * state, embedding], axis=-1), candidate))
        return keep * state + (1 - keep) * new


class AttentiveDecoder(nn.Module):
    """One layer of causal attention and an MLP over the hidden state and the embeddings of the tokens read so far.

    Its state is these vectors, [..., A, D], with zeros for unread tokens. There is no KV cache: an event is so short that keys
    and values are recomputed for each token.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        D, F, H, h = config.embed_dim, config.event_decoder_dim or config.embed_dim, config.num_heads, config.head_dim
        kernel_init = nn.initializers.lecun_normal()
        heads_init = fan_in_init(kernel_init)
        self.places = parameter(self, "places", nn.initializers.normal(0.02), (config.num_attributes, D))
        self.query, self.key, self.value = (parameter(self, name, heads_init, (D, H, h)) for name in ("query", "key", "value"))
        output_init = fan_in_init(nn.initializers.normal((2 * H * h) ** -0.5), 2)
        self.output = parameter(self, "output", output_init, (H, h, D))
        self.up = parameter(self, "up", kernel_init, (D, F))
        self.down = parameter(self, "down", nn.initializers.normal((2 * F) ** -0.5), (F, D))
        self.attention_norm, self.mlp_norm, self.output_norm = RMSNorm(), RMSNorm(), RMSNorm()

    def init_carry(self, hidden: jax.Array) -> jax.Array:
        unread = jnp.zeros((*hidden.shape[:-1], self.config.num_attributes - 1, hidden.shape[-1]), hidden.dtype)
        return jnp.concatenate([hidden[..., None, :], unread], axis=-2)

    def hidden(self, read: jax.Array, step: int) -> jax.Array:
        cast = lambda array: array.astype(read.dtype)
        inputs = read[..., : step + 1, :]
        places = self.places[: step + 1].reshape((1,) * (inputs.ndim - 2) + (step + 1, -1))
        x = inputs + cast(places)
        normed = self.attention_norm(x)
        q = dense(normed[..., -1, :], cast(self.query)) * self.config.head_dim**-0.5
        k, v = dense(normed, cast(self.key)), dense(normed, cast(self.value))
        weights = nn.softmax(jnp.einsum("...hd,...shd->...hs", q, k, preferred_element_type=jnp.float32))
        attended = jnp.einsum("...hs,...shd->...hd", weights.astype(v.dtype), v)
        u = x[..., -1, :] + dense(attended, cast(self.output), 2)
        u = u + dense(nn.gelu(dense(self.mlp_norm(u), cast(self.up))), cast(self.down))
        return self.output_norm(u)

    def consume(self, read: jax.Array, embedding: jax.Array, step: int) -> jax.Array:
        return read.at[..., step + 1, :].set(embedding)


DECODERS = {"mlp": ResidualDecoder, "gru": RecurrentDecoder, "attention": AttentiveDecoder}


class Nested(Pooled):
    """Predicts the attributes of the next event one after another with an event decoder.

    carry.hidden is the event decoder's state, whose shape depends on the decoder.
    """

    def setup(self):
        super().setup()
        config = self.config
        self.decoder = DECODERS[config.event_decoder](config)
        # For all attributes but the last one. Separate from the pooled embeddings: their scale is that of the hidden state.
        self.inner_embeddings = [self.embedding_table(f"inner_embedding_{a}", a, 0.5) for a in config.decode_order[:-1]]

    def init_carry(self, hidden: jax.Array) -> EventCarry:
        return super().init_carry(hidden).replace(hidden=self.decoder.init_carry(hidden))

    def next_logits(self, carry: EventCarry, attribute: int) -> jax.Array:
        return self.logits(self.decoder.hidden(carry.hidden, self.config.decode_order.index(attribute)), attribute)

    def consume(self, carry: EventCarry, token: jax.Array, attribute: int) -> EventCarry:
        step = self.config.decode_order.index(attribute)
        embedding = look_up(self.inner_embeddings[step], token).astype(carry.hidden.dtype)
        hidden = self.decoder.consume(carry.hidden, embedding, step)
        return super().consume(carry, token, attribute).replace(hidden=hidden)
