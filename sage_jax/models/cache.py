"""The key-value cache: an explicit argument and return value of the model, allocated once. Shapes as in attention.py."""

import jax
import jax.numpy as jnp

from sage_jax import struct
from sage_jax.models.attend import implementation_of
from sage_jax.models.config import ModelConfig
from sage_jax.models.layout import Buffers, LayerCache, Layout, put_rows, take_rows


@struct.dataclass
class Cache(struct.Struct):
    """Keys and values of the events read so far.

    buffers: pairs of key and value buffers, in the shapes of `layout`.
    partial_event: per layer keys and values of the first A attributes of the event that is being read token by token, each
      [B, K, A, 1, h]. They are written to `buffers` once, when the event is complete. Empty between events.
    length: int32 [B], number of complete events of each row. What the buffers hold from there on is not read.
    slots: int32 [B], the rows of `buffers` that these rows are; None for all in order, as everywhere but in `rows`.
    layout: that of the implementation which attends to the cache.
    is_empty: whether it is known that no row has an event, so that nothing in the buffers is attended to.
    """

    buffers: Buffers
    partial_event: Buffers
    length: jax.Array
    layout: Layout = struct.field(pytree_node=False)
    slots: jax.Array | None = None
    is_empty: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, max_events: int) -> "Cache":
        """A cache with a capacity of `max_events` events in each of `batch` rows."""
        layout = implementation_of(config).layout(config)
        zeros = lambda shape: jnp.zeros(shape, config.dtype)
        buffers = tuple((zeros(keys), zeros(values)) for keys, values in layout.shapes(batch, max_events))
        return cls(buffers, (), jnp.zeros((batch,), jnp.int32), layout)

    @property
    def max_events(self) -> int:
        """The capacity S."""
        return self.layout.max_events(self.buffers)

    @property
    def num_bytes(self) -> int:
        """Size of the buffers, without the partial event."""
        return sum(buffer.size * buffer.dtype.itemsize for buffer in jax.tree.leaves(self.buffers))

    def layer(self, number: int) -> LayerCache | None:
        """What one layer attends to, None for nothing."""
        if self.is_empty:
            return None
        partial_event = self.partial_event[number] if self.partial_event else None
        cached = self.layout.layer(self.buffers, number)
        if self.slots is not None:
            cached = take_rows(cached[0], self.slots), take_rows(cached[1], self.slots)
        return LayerCache(cached, partial_event, self.length)

    def rows(self, slots: jax.Array) -> "Cache":
        """The rows `slots`, int32 [K], as a cache of K rows that writes to these buffers, which are not copied."""
        take = lambda leaf: take_rows(leaf, slots)
        return self.replace(length=take(self.length), slots=slots)

    def with_rows(self, slots: jax.Array, rows: "Cache") -> "Cache":
        """The whole cache again after `rows` of it, the rows `slots`, were written to."""
        put = lambda whole, part: put_rows(whole, slots, part)
        return self.replace(buffers=rows.buffers, length=put(self.length, rows.length))

    def write(self, new_kv: Buffers, after: jax.Array) -> "Cache":
        """Writes N complete events after those of each row: `new_kv` has keys and values [B, K, E, N, h] for each layer.

        The lengths stay: the caller adds the events that it keeps, with `advance`. It must not exceed the capacity, as a write
        past the end overwrites the last events.

        after: an array that depends on every read of the buffers. It adds a false dependency to the write, so that XLA
        schedules the in-place write after the reads. Otherwise XLA copies each buffer.
        """
        length = jnp.where(after.ravel()[0] == jnp.inf, 0, self.length)
        return self.replace(buffers=self.layout.append(self.buffers, new_kv, length, self.slots), partial_event=())

    def advance(self, count: jax.Array) -> "Cache":
        """Keeps the `count` (int32 [B]) events of each row that were written last."""
        return self.replace(length=self.length + count)
