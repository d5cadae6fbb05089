"""Models that run their layers once for an event, over its pooled embeddings, and foretell the next one from a single state.

Shapes as in attention.py: B batch, N events, A attributes, D model width. Where attribute a of event n is foretold from state
n - 1, logits are told in the places that `Backbone` asks for: of the first attribute those of event n + 1 stand at n.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from sage_jax.models.backbone import Backbone
from sage_jax.models.cache import Cache
from sage_jax.models.product import product


@flax.struct.dataclass
class EventCarry:
    """What is known of the next event.

    hidden: the state [B, D] behind the last whole event, or what a form makes of it token by token. event: int32 [B, A], the
    tokens read of the next one so far.
    """

    hidden: jax.Array
    event: jax.Array


class Pooled(Backbone):
    """Every attribute of the next event from the same state, in parallel, as if they did not depend on each other.

    Pooling by sum is the form of the Multitrack Music Transformer (arXiv 2207.06983), by concatenation and projection that of
    Octuple (MusicBERT, arXiv 2106.05630).
    """

    # Begun as small as the flat model's, the sum of an event's embeddings is slow to be heard beside what the layers add: a
    # nested model of the demo's size ended 250 steps on multi-track music at 9.24 nats per note, and so at 8.52.
    embedding_scale = 0.5

    def setup(self):
        super().setup()
        A, D = self.config.num_attributes, self.config.width
        if self.config.pooling == "concat":
            self.pool = self.param("pool", nn.initializers.lecun_normal(), (A * D, D))

    def __call__(self, events: jax.Array, pieces: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """events [B, N, A] -> float32 logits [B, N, V_a] of each attribute a; `pieces` as in `through_layers`.

        Those of the attributes after the first are for the same event, 0 for what nothing foretells of event 0; those of the
        first are for the event after it.
        """
        hidden, _ = self.through_layers(self.pooled(self.steps(events, pieces)), None, pieces=pieces)
        carry, blocks = self.begin(hidden[:, :, 0]), {}
        following = jnp.pad(events[:, 1:], ((0, 0), (0, 1), (0, 0)))
        order, ahead = self.config.order, self.config.ahead
        for attribute in order:
            blocks[attribute] = self.next_logits(carry, attribute)
            is_same_event = 0 < ahead <= attribute
            if not is_same_event and attribute:
                blocks[attribute] = jnp.pad(blocks[attribute][:, :-1], ((0, 0), (1, 0), (0, 0)))
            if attribute != order[-1]:
                carry = self.step(carry, (events if is_same_event else following)[..., attribute], attribute)
        return tuple(blocks[attribute] for attribute in range(len(order)))

    # Decoding

    def read(self, events: jax.Array, cache: Cache) -> tuple[EventCarry, Cache]:
        hidden, fresh = self.through_layers(self.pooled(self.steps(events)), cache)
        carry = self.begin(hidden[:, -1, 0])
        for attribute in range(self.config.ahead or self.config.num_attributes, self.config.num_attributes):
            carry = self.step(carry, events[:, -1, attribute], attribute)
        return carry, cache.write(fresh, after=hidden)

    def feed(self, carry, cache: Cache, token: jax.Array, attribute: int):
        if attribute != self.config.order[-1]:
            return self.step(carry, token, attribute), cache
        event = carry.event.at[:, attribute].set(token)
        hidden, fresh = self.through_layers(self.pooled(event[:, None]), cache, empty=False)
        return self.begin(hidden[:, 0, 0]), cache.write(fresh, after=hidden)

    def next_logits(self, carry, attribute: int) -> jax.Array:
        return self.logits(carry.hidden, attribute)

    # The parts that a form has of its own: shapes [.., D] and [.., A], with any axes before them

    def begin(self, hidden: jax.Array) -> EventCarry:
        """The carry behind a whole event."""
        return EventCarry(hidden, jnp.zeros((*hidden.shape[:-1], self.config.num_attributes), jnp.int32))

    def step(self, carry: EventCarry, token: jax.Array, attribute: int) -> EventCarry:
        """The carry behind one more token of the next event, not its last."""
        return carry.replace(event=carry.event.at[..., attribute].set(token))

    def steps(self, events: jax.Array, pieces: jax.Array | None = None) -> jax.Array:
        """events [B, N, A] -> [B, N, A], as the layers read them: what is not read ahead stands beside the event behind it."""
        ahead = self.config.ahead
        if not ahead:
            return events
        last = jnp.pad(events[:, :-1], ((0, 0), (1, 0), (0, 0)))
        if pieces is not None:  # nothing of the piece before
            begins = pieces != jnp.pad(pieces[:, :-1], ((0, 0), (1, 0)))
            last = jnp.where(begins[..., None], 0, last)
        return jnp.concatenate([events[..., :ahead], last[..., ahead:]], axis=-1)

    def pooled(self, events: jax.Array) -> jax.Array:
        """events [B, N, A] -> [B, N, 1, D]; nothing comes of PAD."""
        parts = [
            jnp.where(events[..., a, None] > 0, jnp.take(table, events[..., a], axis=0), 0)
            for a, table in enumerate(self.embeddings)
        ]
        if self.config.pooling == "concat":
            joined = jnp.concatenate(parts, axis=-1).astype(self.config.dtype)
            x = product(joined, self.pool.astype(joined.dtype))
        else:
            x = sum(parts)
        return x[:, :, None].astype(self.config.dtype)


class Compound(Pooled):
    """The first attribute from the state, the others from the state and the first one, in parallel.

    The form of Compound Word (arXiv 2101.02402), whose first token is an event's type; here it is the first of the cycle.
    """

    def setup(self):
        super().setup()
        D = self.config.width
        self.lead = self.param("lead", nn.initializers.normal(0.02), (self.config.vocab_sizes[0], D))
        self.join = self.param("join", nn.initializers.lecun_normal(), (2 * D, D))

    def step(self, carry: EventCarry, token: jax.Array, attribute: int) -> EventCarry:
        carry = super().step(carry, token, attribute)
        if attribute > 0:
            return carry
        lead = jnp.take(self.lead, token, axis=0).astype(carry.hidden.dtype)
        joined = jnp.concatenate([carry.hidden, lead], axis=-1)
        return carry.replace(hidden=product(joined, self.join.astype(joined.dtype)))
