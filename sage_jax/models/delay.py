"""The delay pattern: attribute a of event n is foretold a steps after its first one (MusicGen, arXiv 2306.05284).

So each attribute knows those before it, no parameter is added, and the layers run once for an event; what foretells the later
attributes of an event knows the first ones of the events behind it too.
"""

import jax
import jax.numpy as jnp

from sage_jax.models.cache import Cache
from sage_jax.models.pooled import EventCarry, Pooled


class Delay(Pooled):
    """At step t it reads attribute a of event t - a, for each a, and foretells that of event t + 1 - a.

    The carry's event is such a step: its tokens belong to events on end, and are fed in any order, but the last attribute last.
    """

    def __call__(self, events: jax.Array, pieces: None = None) -> tuple[jax.Array, ...]:
        """As Pooled, but for one piece in a row. Behind the last event the steps go on until it is foretold, with nothing in place of the ones unknown."""
        N, A = events.shape[1:]
        hidden, _ = self.through_layers(self.pooled(delayed(events, max(N, N + A - 2))), None)
        later = (self.logits(hidden[:, a - 1 : a - 1 + N, 0], a) for a in range(1, A))
        return (self.logits(hidden[:, :N, 0], 0), *later)

    def read(self, events: jax.Array, cache: Cache) -> tuple[EventCarry, Cache]:
        return super().read(delayed(events, events.shape[1]), cache)


def delayed(events: jax.Array, steps: int) -> jax.Array:
    """events [B, N, A] -> [B, steps, A]: at step t attribute a of event t - a, PAD (0) where there is no such event."""
    N, A = events.shape[1:]
    columns = []
    for a in range(A):
        read = max(min(N, steps - a), 0)
        columns.append(jnp.pad(events[:, :read, a], ((0, 0), (steps - read if a >= steps else a, max(steps - a - read, 0)))))
    return jnp.stack(columns, axis=-1)
