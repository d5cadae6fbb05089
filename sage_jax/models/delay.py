"""The delay pattern (MusicGen, arXiv 2306.05284): attribute a of an event is predicted a steps after its first attribute.

Each attribute is thus conditioned on the earlier ones of its event, without additional parameters and with one backbone step
per event. The later attributes of an event are also conditioned on the first attributes of the events after it.
"""

import jax
import jax.numpy as jnp

from sage_jax.models.pooled import Pooled


class Delay(Pooled):
    """Step t reads attribute a of event t - a, for each a, and predicts attribute a of event t + 1 - a.

    carry.event holds one delayed step: its attribute a belongs to event t - a. Decoding may read the attributes of a step in
    any order, except that the last one comes last.
    """

    def __call__(self, events: jax.Array, segment_ids: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """As Pooled, but one segment per row: `segment_ids` must be None.

        The steps continue after the last event until all of its attributes are predicted; their unknown inputs are PAD.
        """
        assert segment_ids is None, "the delay pattern does not support segments"
        N, A = events.shape[1:]
        hidden, _ = self.apply_layers(self.pooled(delayed(events, max(N, N + A - 2))), None)
        later = (self.logits(hidden[:, a - 1 : a - 1 + N, 0], a) for a in range(1, A))
        return (self.logits(hidden[:, :N, 0], 0), *later)

    def cached_inputs(self, events: jax.Array, before: jax.Array) -> jax.Array:
        C, N = before.shape[1], events.shape[1]
        return delayed(jnp.concatenate([before, events], axis=1), C + N)[:, C:]


def delayed(events: jax.Array, steps: int) -> jax.Array:
    """events [B, N, A] -> [B, steps, A]: step t has attribute a of event t - a, or PAD (0) if there is no such event."""
    N, A = events.shape[1:]
    columns = []
    for a in range(A):
        read = max(min(N, steps - a), 0)
        columns.append(jnp.pad(events[:, :read, a], ((0, 0), (steps - read if a >= steps else a, max(steps - a - read, 0)))))
    return jnp.stack(columns, axis=-1)
