"""The key-value cache: an explicit argument and return value of the model, allocated once. Shapes as in attention.py."""

import jax
import jax.numpy as jnp

from sage_jax import struct
from sage_jax.models.config import ModelConfig

KeysValues = tuple[jax.Array, jax.Array]
KEYS_EVENTS, VALUES_EVENTS = 4, 3  # the event axis of a layer's key and value buffers


@struct.dataclass
class Cache(struct.Struct):
    """Keys and values of the events read so far, one pair of buffers per layer.

    layers: per layer keys [B, G, h, Q, S] and values [B, G, Q, S, h] for a capacity of S events. The keys of a KV group are
      contiguous, and h comes first: both buffers are then right-hand sides of their matrix products without a copy.
    partial_event: per layer keys and values of the event that is being read token by token, each [B, K, E, 1, h]. They are
      written to `layers` once, when the event is complete.
    length: int32 scalar, number of complete events. All rows share it; shorter rows are padded on the left.
    start: int32 [B], each row's first event that is not padding.
    """

    layers: tuple[KeysValues, ...]
    partial_event: tuple[KeysValues, ...]
    length: jax.Array
    start: jax.Array

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, max_events: int) -> "Cache":
        """A cache with a capacity of `max_events` events in each of `batch` rows."""
        (G, Q), S, h = config.kv_groups, max_events, config.head_dim
        one_event = (batch, config.cached_kv_heads, config.keys_per_event, 1, h)

        def pairs(keys: tuple[int, ...], values: tuple[int, ...]) -> tuple[KeysValues, ...]:
            zeros = lambda shape: jnp.zeros(shape, config.dtype)
            return tuple((zeros(keys), zeros(values)) for _ in range(config.num_layers))

        layers = pairs((batch, G, h, Q, S), (batch, G, Q, S, h))
        return cls(layers, pairs(one_event, one_event), jnp.zeros((), jnp.int32), jnp.zeros((batch,), jnp.int32))

    @property
    def max_events(self) -> int:
        """The capacity S."""
        return self.layers[0][0].shape[KEYS_EVENTS]

    @property
    def num_bytes(self) -> int:
        """Size of the buffers, without the partial event."""
        return sum(buffer.size * buffer.dtype.itemsize for buffer in jax.tree.leaves(self.layers))

    def write(self, new_kv: tuple[KeysValues, ...], after: jax.Array) -> "Cache":
        """Appends N complete events: `new_kv` has keys and values [B, K, E, N, h] for each layer.

        The caller must not exceed the capacity: a write past the end overwrites the last events.

        after: an array that depends on every read of the buffers. It adds a false dependency to the write, so that XLA
        schedules the in-place write after the reads. Otherwise XLA copies each buffer.
        """
        position = jnp.where(after.ravel()[0] == jnp.inf, 0, self.length)

        def append(buffers: KeysValues, new: KeysValues) -> KeysValues:
            keys, values = buffers
            B, G, Q, _, h = values.shape
            new_keys, new_values = (part.reshape(B, G, Q, -1, h) for part in new)
            new_keys = new_keys.transpose(0, 1, 4, 2, 3)
            return (
                jax.lax.dynamic_update_slice_in_dim(keys, new_keys, position, KEYS_EVENTS),
                jax.lax.dynamic_update_slice_in_dim(values, new_values, position, VALUES_EVENTS),
            )

        layers = tuple(append(buffers, new) for buffers, new in zip(self.layers, new_kv, strict=True))
        return self.replace(layers=layers, length=self.length + new_kv[0][0].shape[3])

    def resize(self, max_events: int) -> "Cache":
        """The same events in a cache with a capacity of `max_events`, which must not be smaller."""
        more = max_events - self.max_events

        def pad(buffer: jax.Array, axis: int) -> jax.Array:
            return jnp.pad(buffer, [(0, more if dimension == axis else 0) for dimension in range(buffer.ndim)])

        layers = tuple((pad(keys, KEYS_EVENTS), pad(values, VALUES_EVENTS)) for keys, values in self.layers)
        return self.replace(layers=layers)
