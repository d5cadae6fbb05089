"""The key-value cache: an explicit argument and return value, allocated once."""

import flax.struct
import jax
import jax.numpy as jnp

from sage_jax.models.config import ModelConfig

KeysValues = tuple[jax.Array, jax.Array]


@flax.struct.dataclass
class Cache:
    """Keys and values of the events read so far, one pair of buffers per layer.

    layers: per layer (keys, values), each [B, K, A, S, h]: K heads for each of the A tokens of S events. Tokens of one
      attribute lie together, so that scope own reads a plain slice and scope all reads the whole without a copy.
    pending: the same of the one event that is being read token by token, each [B, K, A, 1, h]. The buffers are read for each
      of its tokens, but written only once, when it is complete.
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
        shape = (batch, config.cached_heads, config.num_attributes, max_events, config.head_width)
        one_event = (*shape[:3], 1, shape[4])
        pairs = lambda shape: tuple(
            (jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in range(config.layers)
        )
        return cls(pairs(shape), pairs(one_event), jnp.zeros((), jnp.int32), jnp.zeros((batch,), jnp.int32))

    @property
    def max_events(self) -> int:
        return self.layers[0][0].shape[3]

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
        put = lambda buffer, new: jax.lax.dynamic_update_slice(buffer, new, (0, 0, 0, place, 0))
        layers = jax.tree.map(put, self.layers, fresh)
        return self.replace(layers=layers, length=self.length + fresh[0][0].shape[3])

    def grown(self, max_events: int) -> "Cache":
        """With room for `max_events` events, no fewer than there are."""
        more = max_events - self.max_events
        pad = lambda buffer: jnp.pad(buffer, ((0, 0), (0, 0), (0, 0), (0, more), (0, 0)))
        return self.replace(layers=jax.tree.map(pad, self.layers))
