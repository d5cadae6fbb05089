"""The state of a batch of sessions, and what changes a row of it between event steps. All functions are pure.

Shape legend, besides that of models/attention.py: C earlier events that a model reads again in a prefill; g integers of the
grammar's state; L the lag of the delay pattern, A - 1 events, 0 in every other architecture.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.decoding.constraints import Constraints, Limits
from sage_jax.decoding.sampling import SamplingConfig, SamplingParams
from sage_jax.models.cache import Cache
from sage_jax.models.layout import put_rows, take_rows


@struct.dataclass
class Controls(struct.Struct):
    """The settings of each row. Traced: changing one compiles nothing.

    keys: uint32 [B, ...], data of each row's PRNG key. A draw folds in `offset` plus the length of its row, so that it is the
      same alone, in any batch and after any rollback. Typed keys would make each call slower.
    offset: int32 [B], number of the row's events before those in the cache.
    max_length: int32 [B], cached events at which the row stops.
    """

    keys: jax.Array
    offset: jax.Array
    max_length: jax.Array
    sampling: SamplingParams
    constraints: Constraints

    @classmethod
    def of(
        cls,
        key: np.ndarray,
        sampling: SamplingConfig,
        limits: Limits,
        *,
        offset: int = 0,
        max_length: int = 1 << 30,
        tracks_per_program: int = 1,
    ) -> "Controls":
        """One row, as numpy arrays. key: uint32 [...], the data of a PRNG key. tracks_per_program: that of the grid."""
        numbers = (struct.one_row(value, np.int32) for value in (offset, max_length))
        settings = SamplingParams.of(sampling), limits.constraints(tracks_per_program)
        return cls(*[struct.one_row(key, key.dtype), *numbers, *settings])

    def keys_at(self, length: jax.Array) -> jax.Array:
        """The PRNG key [B] with which each row draws the event after `length` cached ones, int32 [B]."""
        return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(self.keys), self.offset + length)


@struct.dataclass
class DecodeState(struct.Struct):
    """Everything that an event step reads and writes; row b is one session. Donated to each call.

    cache: keys and values of each row's first cache.length[b] events.
    carry: the model's carry after the last of them, see `Backbone`.
    events: int16 [B, L + S, A], the event of each cache slot, given and generated alike, from index L on.
    known: int32 [B], number of events that are given. Those after cache.length are queued: a step reads the next one of them
      instead of choosing an event.
    grammar: int32 [B, L + S + 1, g], the grammar's state before each event, so that going back is a lookup.
    done: bool [B], rows that reached EOS or a bound, or that are released. The others step until they are full.
    """

    cache: Cache
    carry: Any
    events: jax.Array
    known: jax.Array
    grammar: jax.Array
    done: jax.Array
    controls: Controls

    @property
    def capacity(self) -> int:
        """S."""
        return self.cache.max_events

    @property
    def active(self) -> jax.Array:
        """bool [B], rows that the next event step extends. The last slot of the cache takes the writes of full rows."""
        length = self.cache.length
        return ~self.done & (length < jnp.minimum(self.controls.max_length, self.capacity - 1))

    def row(self, slot: jax.Array) -> "DecodeState":
        """The row `slot` as a batch of one."""
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, slot, 1), self)

    def rows(self, slots: jax.Array) -> "DecodeState":
        """The rows `slots`, int32 [K], as a batch of K, whose cache writes to this one's buffers; see `with_rows`."""
        taken = jax.tree.map(lambda leaf: take_rows(leaf, slots), self._without_cache())
        return taken.replace(cache=self.cache.rows(slots))

    def with_rows(self, slots: jax.Array, rows: "DecodeState") -> "DecodeState":
        """The whole batch again after `rows` of it, the rows `slots`, were changed."""
        put = lambda whole, part: put_rows(whole, slots, part)
        changed = jax.tree.map(put, self._without_cache(), rows._without_cache())
        return changed.replace(cache=self.cache.with_rows(slots, rows.cache))

    def _without_cache(self) -> "DecodeState":
        return self.replace(cache=())

    def insert(self, slot: jax.Array, other: "DecodeState") -> "DecodeState":
        """`other` in the rows from `slot` on. Its events must fit; the capacities may differ."""

        def put(whole: jax.Array, part: jax.Array) -> jax.Array:
            fitting = part[tuple(slice(0, size) for size in whole.shape)]
            return jax.lax.dynamic_update_slice(whole, fitting, (slot, *(0,) * (whole.ndim - 1)))

        return jax.tree.map(put, self, other)

    def release(self, slot: jax.Array) -> "DecodeState":
        """Ends the row `slot`: it is not stepped, and another one can be inserted there."""
        return self.replace(done=self.done.at[slot].set(True))
