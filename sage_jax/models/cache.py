"""The key-value cache: an explicit argument and return value of the model, allocated once. Shapes as in attention.py."""

import functools

import jax
import jax.numpy as jnp

from sage_jax import struct
from sage_jax.models.config import ModelConfig

KeysValues = tuple[jax.Array, jax.Array]
KEYS_AXIS, VALUES_AXIS = 3, 2  # the axis of M in a layer's key and value buffers


@struct.dataclass
class Cache(struct.Struct):
    """Keys and values of the events read so far, one pair of buffers per layer.

    layers: per layer keys [B, G, h, M] and values [B, G, M, h] for a capacity of S events, M = S Q: the Q keys of an event are
      neighbours. Both buffers are thus right-hand sides of their matrix products as they are. Had Q and S an axis each, a TPU,
      which pads the last two axes to whole tiles, would copy the buffers to join them.
    partial_event: per layer keys and values of the event that is being read token by token, each [B, K, E, 1, h]. They are
      written to `layers` once, when the event is complete.
    length: int32 [B], number of complete events of each row. What the buffers hold from there on is not read.
    """

    layers: tuple[KeysValues, ...]
    partial_event: tuple[KeysValues, ...]
    length: jax.Array

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, max_events: int) -> "Cache":
        """A cache with a capacity of `max_events` events in each of `batch` rows."""
        (G, Q), S, h = config.kv_groups, max_events, config.head_dim
        one_event = (batch, config.cached_kv_heads, config.keys_per_event, 1, h)

        def pairs(keys: tuple[int, ...], values: tuple[int, ...]) -> tuple[KeysValues, ...]:
            zeros = lambda shape: jnp.zeros(shape, config.dtype)
            return tuple((zeros(keys), zeros(values)) for _ in range(config.num_layers))

        layers = pairs((batch, G, h, S * Q), (batch, G, S * Q, h))
        return cls(layers, pairs(one_event, one_event), jnp.zeros((batch,), jnp.int32))

    @property
    def max_events(self) -> int:
        """The capacity S."""
        return self.layers[0][0].shape[KEYS_AXIS] // self._keys_per_group

    @property
    def _keys_per_group(self) -> int:
        """Q."""
        K, E = self.partial_event[0][0].shape[1:3]
        return K * E // self.layers[0][0].shape[1]

    @property
    def num_bytes(self) -> int:
        """Size of the buffers, without the partial event."""
        return sum(buffer.size * buffer.dtype.itemsize for buffer in jax.tree.leaves(self.layers))

    def write(self, new_kv: tuple[KeysValues, ...], after: jax.Array) -> "Cache":
        """Writes N complete events after those of each row: `new_kv` has keys and values [B, K, E, N, h] for each layer.

        The lengths stay: the caller adds the events that it keeps, with `advance`. It must not exceed the capacity, as a write
        past the end overwrites the last events.

        after: an array that depends on every read of the buffers. It adds a false dependency to the write, so that XLA
        schedules the in-place write after the reads. Otherwise XLA copies each buffer.
        """
        Q = self._keys_per_group
        position = jnp.where(after.ravel()[0] == jnp.inf, 0, self.length * Q)

        def append(buffers: KeysValues, new: KeysValues) -> KeysValues:
            keys, values = buffers
            B, G, _, h = values.shape
            # [B, K, E, N, h] -> [B, G, N Q, h]
            new_keys, new_values = (part.reshape(B, G, Q, -1, h).swapaxes(2, 3).reshape(B, G, -1, h) for part in new)
            return (
                update_rows(keys, new_keys.swapaxes(2, 3), position, KEYS_AXIS),
                update_rows(values, new_values, position, VALUES_AXIS),
            )

        layers = tuple(append(buffers, new) for buffers, new in zip(self.layers, new_kv, strict=True))
        return self.replace(layers=layers)

    def advance(self, count: jax.Array) -> "Cache":
        """Keeps the `count` (int32 [B]) events of each row that were written last."""
        return self.replace(length=self.length + count)


def update_rows(buffer: jax.Array, new: jax.Array, position: jax.Array, axis: int) -> jax.Array:
    """Writes new [B, ...] into buffer [B, ...], in row b from position[b] on along `axis`; in place where XLA can.

    On a CPU each row is an update of its own, since XLA expands a scatter into a loop there. Elsewhere one scatter writes all.
    """
    if len(buffer) == 1:
        return jax.lax.dynamic_update_slice_in_dim(buffer, new, position[0], axis)
    return jax.lax.platform_dependent(
        buffer, new, position, cpu=functools.partial(_row_by_row, axis=axis), default=functools.partial(_scatter, axis=axis)
    )


def _row_by_row(buffer: jax.Array, new: jax.Array, position: jax.Array, axis: int) -> jax.Array:
    for row in range(len(buffer)):
        start = [jnp.int32(0)] * buffer.ndim
        start[0], start[axis] = jnp.int32(row), position[row]
        buffer = jax.lax.dynamic_update_slice(buffer, new[row : row + 1], start)
    return buffer


def _scatter(buffer: jax.Array, new: jax.Array, position: jax.Array, axis: int) -> jax.Array:
    return jax.vmap(lambda row, new, position: jax.lax.dynamic_update_slice_in_dim(row, new, position, axis - 1))(
        buffer, new, position
    )
