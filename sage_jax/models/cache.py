"""The key-value cache: an explicit argument and return value, allocated once."""

import flax.struct
import jax
import jax.numpy as jnp

from sage_jax.models.config import ModelConfig


@flax.struct.dataclass
class Cache:
    """Keys and values of the events read so far, one buffer per layer.

    keys, values: per layer [B, K, A, S, h]: K heads for each of the A tokens of S events. Tokens of one attribute lie
      together, so that scope own reads a plain slice and scope all reads the whole without a copy.
    length: int32 scalar, the events that are complete; the same for every row, shorter rows being padded on the left.
    start: int32 [B], the first event of each row that is not padding.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    length: jax.Array
    start: jax.Array

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, max_events: int) -> "Cache":
        """Room for `max_events` events in each of `batch` rows."""
        shape = (batch, config.cached_heads, config.num_attributes, max_events, config.head_width)
        buffers = lambda: tuple(jnp.zeros(shape, config.dtype) for _ in range(config.layers))
        return cls(buffers(), buffers(), jnp.zeros((), jnp.int32), jnp.zeros((batch,), jnp.int32))

    @property
    def max_events(self) -> int:
        return self.keys[0].shape[3]

    @property
    def num_bytes(self) -> int:
        return sum(buffer.size * buffer.dtype.itemsize for buffer in self.keys + self.values)
