"""The key-value cache: an explicit argument and return value, allocated once."""

import flax.struct
import jax
import jax.numpy as jnp

from sage_jax.models.config import ModelConfig

KeysValues = tuple[jax.Array, jax.Array]
KEYS_EVENTS, VALUES_EVENTS = 4, 3  # the axes of the buffers that count events


@flax.struct.dataclass
class Cache:
    """Keys and values of the events read so far, one pair of buffers per layer.

    layers: per layer keys [B, L, h, Q, S] and values [B, L, Q, S, h] of S events, in ModelConfig.cached_lanes = (L, Q): what a
      query head reads lies together, and either is the right side of its product as it stands, without a copy. With the keys
      [S, h] too, scores took 1.1 (mha) to 2 times (mqa) as long on two CPU cores.
    pending: keys and values of the one event that is being read token by token, each [B, K, A, 1, h]. The buffers are read
      for each of its tokens, but written only once, when it is complete.
    length: int32 scalar, the events that are complete; the same for every row, shorter rows being padded on the left.
    start: int32 [B], the first event of each row that is not padding.
    """

    layers: tuple[KeysValues, ...]
    pending: tuple[KeysValues, ...]
    length: jax.Array
    start: jax.Array

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, max_events: int) -> "Cache":
        """Room for `max_events` events in each of `batch` rows."""
        (L, Q), S, h = config.cached_lanes, max_events, config.head_width
        one_event = (batch, config.cached_heads, config.keys_per_event, 1, h)
        pairs = lambda *shapes: tuple(
            tuple(jnp.zeros(shape, config.dtype) for shape in shapes) for _ in range(config.layers)
        )
        layers = pairs((batch, L, h, Q, S), (batch, L, Q, S, h))
        return cls(layers, pairs(one_event, one_event), jnp.zeros((), jnp.int32), jnp.zeros((batch,), jnp.int32))

    @property
    def max_events(self) -> int:
        return self.layers[0][0].shape[KEYS_EVENTS]

    @property
    def num_bytes(self) -> int:
        """Of the buffers; the pending event is left out."""
        return sum(buffer.size * buffer.dtype.itemsize for buffer in jax.tree.leaves(self.layers))

    def write(self, fresh: tuple[KeysValues, ...], after: jax.Array) -> "Cache":
        """With `fresh`, per layer keys and values [B, K, A, N, h] of N whole events, behind those that are there.

        after: the result of everything that reads the buffers as they are. The write is made to depend on it, by way of a
        place that is never taken: XLA orders by dependence alone, and would otherwise copy every buffer for its readers.
        """
        place = jnp.where(after.ravel()[0] == jnp.inf, 0, self.length)

        def put(buffers: KeysValues, new: KeysValues) -> KeysValues:
            keys, values = buffers
            B, L, Q, _, h = values.shape
            new_keys, new_values = (part.reshape(B, L, Q, -1, h) for part in new)
            new_keys = new_keys.transpose(0, 1, 4, 2, 3)
            return (
                jax.lax.dynamic_update_slice_in_dim(keys, new_keys, place, KEYS_EVENTS),
                jax.lax.dynamic_update_slice_in_dim(values, new_values, place, VALUES_EVENTS),
            )

        layers = tuple(put(*pair) for pair in zip(self.layers, fresh, strict=True))
        return self.replace(layers=layers, length=self.length + fresh[0][0].shape[3])

    def grown(self, max_events: int) -> "Cache":
        """With room for `max_events` events, no fewer than there are."""
        more = max_events - self.max_events

        def pad(buffer: jax.Array, axis: int) -> jax.Array:
            return jnp.pad(buffer, [(0, more if dimension == axis else 0) for dimension in range(buffer.ndim)])

        layers = tuple((pad(keys, KEYS_EVENTS), pad(values, VALUES_EVENTS)) for keys, values in self.layers)
        return self.replace(layers=layers)
