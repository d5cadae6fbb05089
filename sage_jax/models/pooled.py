"""Event-level models: the layers run once per event on pooled embeddings, and one hidden state predicts the next event.

Shapes as in attention.py; A is the number of attributes here. Without lookahead the hidden state at position n - 1 predicts all
attributes of event n. `__call__` returns their logits at the positions of the flat model, see `Pooled.__call__`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sage_jax import struct
from sage_jax.models.backbone import Backbone, at_event
from sage_jax.models.cache import Cache
from sage_jax.models.dense import dense, parameter
from sage_jax.models.instruments import look_up


@struct.dataclass
class EventCarry(struct.Struct):
    """State from which the next token is predicted.

    hidden: hidden state [B, D] at the last complete event, or the state that a subclass updates token by token.
    event: int32 [B, A], the tokens of the next event that are read so far.
    """

    hidden: jax.Array
    event: jax.Array


class Pooled(Backbone):
    """Predicts all attributes of the next event in parallel, conditionally independent given the hidden state.

    Sum pooling is that of the Multitrack Music Transformer (arXiv 2207.06983). Concatenation with a projection is that of
    Octuple (MusicBERT, arXiv 2106.05630).
    """

    # With the flat model's 0.02 the pooled embedding is too small relative to the residual updates, and learning is slow: 9.24
    # instead of 8.52 nats per note after 250 steps.
    embedding_scale = 0.5

    def setup(self):
        super().setup()
        A, D = self.config.num_attributes, self.config.embed_dim
        if self.config.pooling == "concat":
            self.pool = parameter(self, "pool", nn.initializers.lecun_normal(), (A * D, D))

    def __call__(self, events: jax.Array, segment_ids: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """events [B, N, A] -> float32 logits [B, N, V] of each attribute. `segment_ids` as in `apply_layers`.

        At position n, logits of the first attribute are for event n + 1, those of the other attributes for event n. Attributes
        of event 0 that no hidden state predicts have logits 0.
        """
        hidden, _ = self.apply_layers(self.pooled(self.shift_inputs(events, segment_ids)), None, segment_ids=segment_ids)
        carry, logits = self.init_carry(hidden[:, :, 0]), {}
        next_events = jnp.pad(events[:, 1:], ((0, 0), (0, 1), (0, 0)))
        order, lookahead = self.config.decode_order, self.config.lookahead
        for attribute in order:
            logits[attribute] = self.next_logits(carry, attribute)
            is_same_event = 0 < lookahead <= attribute
            if not is_same_event and attribute:
                logits[attribute] = jnp.pad(logits[attribute][:, :-1], ((0, 0), (1, 0), (0, 0)))
            if attribute != order[-1]:
                carry = self.consume(carry, (events if is_same_event else next_events)[..., attribute], attribute)
        return tuple(logits[attribute] for attribute in range(len(order)))

    # Decoding

    def start_carry(self, before: jax.Array) -> EventCarry:
        hidden = jnp.zeros((len(before), self.config.embed_dim), self.config.dtype)
        return self._after(hidden, before[:, -1])

    def prefill(self, events: jax.Array, before: jax.Array, count: jax.Array, cache: Cache) -> tuple[EventCarry, Cache]:
        hidden, cache = self._read(events, before, cache)
        return self._after(at_event(hidden, count), at_event(events, count)), cache

    def prefill_each(self, events: jax.Array, before: jax.Array, cache: Cache) -> tuple[EventCarry, Cache]:
        hidden, cache = self._read(events, before, cache)
        return self._after(hidden, events), cache

    def _read(self, events: jax.Array, before: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """The hidden state [B, N, D] at each of events [B, N, A], and the cache with them. before: as in `start_carry`."""
        hidden, new_kv = self.apply_layers(self.pooled(self.cached_inputs(events, before)), cache)
        return hidden[:, :, 0], cache.write(new_kv, after=hidden)

    def decode_step(self, carry, cache: Cache, token: jax.Array, attribute: int):
        if attribute != self.config.decode_order[-1]:
            return self.consume(carry, token, attribute), cache
        event = carry.event.at[:, attribute].set(token)
        hidden, new_kv = self.apply_layers(self.pooled(event[:, None]), cache)
        return self.init_carry(hidden[:, 0, 0]), cache.write(new_kv, after=hidden)

    def _after(self, hidden: jax.Array, event: jax.Array) -> EventCarry:
        """The carry after `event` [..., A], at which the hidden state is `hidden` [..., D]."""
        carry = self.init_carry(hidden)
        for attribute in range(self.config.lookahead or self.config.num_attributes, self.config.num_attributes):
            carry = self.consume(carry, event[..., attribute], attribute)
        return carry

    def cached_inputs(self, events: jax.Array, before: jax.Array) -> jax.Array:
        """Backbone inputs [B, N, A] of events [B, N, A] that follow those in `before` [B, C, A]."""
        C = before.shape[1]
        return self.shift_inputs(jnp.concatenate([before, events], axis=1))[:, C:]

    def next_logits(self, carry, attribute: int) -> jax.Array:
        return self.logits(carry.hidden, attribute)

    # Overridden by subclasses. Hidden states are [..., D], events [..., A], tokens [...], with any leading axes.

    def init_carry(self, hidden: jax.Array) -> EventCarry:
        """The carry after a complete event with this hidden state."""
        return EventCarry(hidden, jnp.zeros((*hidden.shape[:-1], self.config.num_attributes), jnp.int32))

    def consume(self, carry: EventCarry, token: jax.Array, attribute: int) -> EventCarry:
        """The carry after one more token of the next event; the last token goes through the backbone instead."""
        return carry.replace(event=carry.event.at[..., attribute].set(token))

    def shift_inputs(self, events: jax.Array, segment_ids: jax.Array | None = None) -> jax.Array:
        """events [B, N, A] -> backbone inputs [B, N, A].

        They are the lookahead attributes of each event and the others of the event before it. PAD stands for the event before
        the first one of a segment.
        """
        lookahead = self.config.lookahead
        if not lookahead:
            return events
        previous = jnp.pad(events[:, :-1], ((0, 0), (1, 0), (0, 0)))
        if segment_ids is not None:
            is_first = segment_ids != jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)))
            previous = jnp.where(is_first[..., None], 0, previous)
        return jnp.concatenate([events[..., :lookahead], previous[..., lookahead:]], axis=-1)

    def pooled(self, events: jax.Array) -> jax.Array:
        """events [B, N, A] -> pooled embeddings [B, N, 1, D]; PAD contributes nothing."""
        parts = [
            jnp.where(events[..., a, None] > 0, look_up(table, events[..., a]), 0)
            for a, table in enumerate(self.embeddings)
        ]
        if self.config.pooling == "concat":
            joined = jnp.concatenate(parts, axis=-1).astype(self.config.dtype)
            x = dense(joined, self.pool.astype(joined.dtype))
        else:
            x = functools.reduce(jnp.add, parts)
        return x[:, :, None].astype(self.config.dtype)


class Compound(Pooled):
    """Predicts the first attribute from the hidden state, and the others in parallel from the hidden state and the first one.

    Compound Word (arXiv 2101.02402) does so with an event's type first. Here the first attribute takes its place.
    """

    def setup(self):
        super().setup()
        D = self.config.embed_dim
        self.lead = parameter(self, "lead", nn.initializers.normal(0.02), (self.config.vocab_sizes[0], D))
        self.join = parameter(self, "join", nn.initializers.lecun_normal(), (2 * D, D))

    def consume(self, carry: EventCarry, token: jax.Array, attribute: int) -> EventCarry:
        carry = super().consume(carry, token, attribute)
        if attribute > 0:
            return carry
        lead = jnp.take(self.lead, token, axis=0).astype(carry.hidden.dtype)
        joined = jnp.concatenate([carry.hidden, lead], axis=-1)
        return carry.replace(hidden=dense(joined, self.join.astype(joined.dtype)))
