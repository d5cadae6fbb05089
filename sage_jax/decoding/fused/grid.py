"""A persistent kernel: all programs of a grid run at once and pass through the same phases, with a barrier before each.

Every phase has a number of tiles, which the programs share. A tile's weights depend on no other tile. So each program loads
those of its first tile before it waits at the barrier. Between barriers each element of a buffer has one writer.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

Number = int | jax.Array
Pieces = list[jax.Array]  # blocks side by side
WIDEST = 512  # numbers of a block's row; wider ones would not fit in the shared memory


@dataclasses.dataclass(frozen=True)
class Grid:
    """The programs of a persistent kernel.

    programs: their number; all must fit on the device at once. program: the number of this one. arrivals: a reference to int32
    [1], zero at the start. seen: one to int32 [programs].
    """

    programs: int
    program: jax.Array
    arrivals: Any
    seen: Any

    def barrier(self, number: Number) -> None:
        """Waits until all programs have arrived at the barrier of this number, counted from 0, and their writes are visible."""
        if self.programs == 1:
            return
        plgpu.debug_barrier()  # the writes of all threads of this program come before its arrival
        plgpu.atomic_add(self.arrivals, (0,), jnp.int32(1))
        target = (number + 1) * self.programs
        arrived = lambda: read(self.arrivals, 0, fresh=True)
        count = jax.lax.while_loop(lambda count: count < target, lambda _: arrived(), arrived())
        write(self.seen, count, self.program)  # Pallas drops a loop whose result nobody needs
        plgpu.debug_barrier()

    def phase(
        self, barrier: Number, tiles: int, load: Callable[[jax.Array], Any], run: Callable[[jax.Array, Any], None]
    ) -> None:
        """Runs `run(tile, load(tile))` for each tile, after the barrier; the first tile's `load` comes before it."""
        program = self.program
        if self.programs == 1:  # no other one to wait for: a loop alone, which compiles in half the time
            jax.lax.fori_loop(0, tiles, lambda tile, _: run(tile, load(tile)), None)
            return
        first = load(jnp.minimum(program, tiles - 1))
        self.barrier(barrier)

        @pl.when(program < tiles)
        def _():
            run(program, first)

        if tiles > self.programs:

            def one_more(turn: jax.Array, _: None) -> None:
                tile = program + turn * self.programs
                run(tile, load(tile))

            turns = (tiles - program + self.programs - 1) // self.programs
            jax.lax.fori_loop(1, turns, one_more, None)


def nothing(tile: jax.Array) -> None:
    """The weights of a phase without any."""
    del tile


def pieces(size: int) -> list[tuple[int, int]]:
    """(start, width) of powers of two that add up to `size`, largest first. A block of a kernel has such a width."""
    found, start = [], 0
    while start < size:
        width = min(1 << (size - start).bit_length() - 1, WIDEST)
        found.append((start, width))
        start += width
    return found


def span(start: Number, width: int) -> jax.Array:
    """int32 [width]: start, start + 1, ..."""
    return start + jax.lax.iota(jnp.int32, width)


def read(ref: Any, *indices: Number | jax.Array, mask: jax.Array | None = None, fresh: bool = False) -> jax.Array:
    """The elements of `ref` at broadcast indices, 0 where not `mask`. fresh: written by other programs of this kernel."""
    found = ref.at[tuple(jnp.int32(index) for index in indices)]
    # A volatile read passes by the first-level cache of a multiprocessor, which may hold what was there before.
    if mask is None:
        return plgpu.load(found, volatile=fresh)
    return plgpu.load(found, mask=mask, other=jnp.zeros((), ref.dtype), volatile=fresh)


def write(ref: Any, value: jax.Array, *indices: Number | jax.Array, mask: jax.Array | None = None) -> None:
    """Writes `value` in the type of `ref` at broadcast indices, where `mask`."""
    plgpu.store(ref.at[tuple(jnp.int32(index) for index in indices)], value.astype(ref.dtype), mask=mask)


def dot(rows: jax.Array, outputs: jax.Array) -> jax.Array:
    """rows [M, K] times the transpose of outputs [N, K] -> float32 [M, N]."""
    return jax.lax.dot_general(rows, outputs, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def sum_of_products(row: jax.Array, outputs: jax.Array) -> jax.Array:
    """row [1, K] times the transpose of outputs [N, K] -> float32 [1, N], without a tensor core."""
    return (row.astype(jnp.float32) * outputs.astype(jnp.float32)).sum(axis=1)[None]


def sum_of(parts: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, parts)
