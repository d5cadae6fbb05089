"""Where a cache keeps the keys and values of a layer: what every layout must do, and writes that XLA makes in place.

Shapes as in attention.py.
"""

import functools
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

KeysValues = tuple[jax.Array, jax.Array]
Buffers = tuple[KeysValues, ...]


class LayerCache(NamedTuple):
    """One layer's part of a `Cache`.

    cached: buffers in the layout of the implementation. partial_event: keys and values of the first A attributes of the event
    that is being read, each [B, K, A, 1, h], None for none. length: int32 [B], events of each row.
    """

    cached: KeysValues
    partial_event: KeysValues | None
    length: jax.Array


class Layout(Protocol):
    """The buffers of all layers, as an implementation of attention reads them (attend.py). Hashable, as a part of programs."""

    def shapes(self, batch: int, max_events: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """Shapes of each pair of key and value buffers for `max_events` events in each of `batch` rows. Rows are the first
        axis; a larger buffer begins with what a smaller one holds."""
        ...

    def max_events(self, buffers: Buffers) -> int:
        """The capacity of the buffers in events."""
        ...

    def layer(self, buffers: Buffers, number: int) -> KeysValues:
        """The buffers of one layer."""
        ...

    def append(self, buffers: Buffers, new: Buffers, length: jax.Array, slots: jax.Array | None = None) -> Buffers:
        """The buffers with N complete events, of each layer keys and values [B, K, E, N, h], after the first `length` [B].

        slots: int32 [B], the rows of the buffers to which these are added; None for all in order.
        """
        ...


def take_rows(array: jax.Array, slots: jax.Array) -> jax.Array:
    """The rows `slots`, int32 [K], of array [B, ...]: [K, ...]."""
    return jnp.concatenate([jax.lax.dynamic_slice_in_dim(array, slots[place], 1) for place in range(len(slots))])


def put_rows(array: jax.Array, slots: jax.Array, rows: jax.Array) -> jax.Array:
    """array [B, ...] with `rows` [K, ...] as its rows `slots`, int32 [K]; in place where XLA can."""
    for place in range(len(slots)):
        array = jax.lax.dynamic_update_slice_in_dim(array, rows[place : place + 1], slots[place], 0)
    return array


def update_rows(
    buffer: jax.Array, new: jax.Array, position: jax.Array, axis: int, slots: jax.Array | None = None
) -> jax.Array:
    """Writes new [K, ...] into buffer [B, ...], in row slots[k] from position[k] on along `axis`; in place where XLA can.

    Without `slots` it writes to every row. On a CPU each row is an update of its own, since XLA expands a scatter into a loop
    there. Elsewhere one scatter writes all.
    """
    if slots is not None:
        return _row_by_row(buffer, new, position, axis, slots)
    if len(buffer) == 1:
        return jax.lax.dynamic_update_slice_in_dim(buffer, new, position[0], axis)
    each_row = functools.partial(_row_by_row, axis=axis, slots=range(len(buffer)))
    return jax.lax.platform_dependent(
        buffer, new, position, cpu=each_row, default=functools.partial(_scatter, axis=axis)
    )


def _row_by_row(
    buffer: jax.Array, new: jax.Array, position: jax.Array, axis: int, slots: jax.Array | range
) -> jax.Array:
    for row in range(len(new)):
        start = [jnp.int32(0)] * buffer.ndim
        start[0], start[axis] = jnp.int32(slots[row]), position[row]
        buffer = jax.lax.dynamic_update_slice(buffer, new[row : row + 1], start)
    return buffer


def _scatter(buffer: jax.Array, new: jax.Array, position: jax.Array, axis: int) -> jax.Array:
    return jax.vmap(lambda row, new, position: jax.lax.dynamic_update_slice_in_dim(row, new, position, axis - 1))(
        buffer, new, position
    )
