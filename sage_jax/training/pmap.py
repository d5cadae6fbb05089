"""A run under pmap: the whole state on each device, the rows of a batch spread over them, sums taken over all of them.

jit over a mesh (sharding.py) does the same and more. This path is for experiments that are made of pmap, and a check on both.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sage_jax.errors import UserError
from sage_jax.training.config import MeshConfig, RunConfig
from sage_jax.training.placed import Programs, check_rows

AXIS = "devices"


class CompiledWhenCalled:
    """For many hosts, where what pmap compiles ahead of time wants other arrays than its own call: all hosts' at once."""

    def __init__(self, function: Callable):
        self._function = function

    def lower(self, *_) -> "CompiledWhenCalled":
        return self

    def compile(self) -> Callable:
        return self._function


def over_devices(run: RunConfig, init: Callable, update: Callable, score: Callable) -> Programs:
    """The programs of a run under pmap; state, params and batches have an axis of this process's devices in front."""
    if run.mesh != MeshConfig():
        raise UserError("config.mesh is for config.parallel = mesh; pmap spreads rows over all devices, and nothing else")
    check_rows(run, jax.device_count())
    local = jax.local_devices()
    each = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())

    def over(function: Callable, **options: Any) -> Any:
        mapped = jax.pmap(functools.partial(function, axis=AXIS), axis_name=AXIS, in_axes=(0, 0), **options)
        return mapped if jax.process_count() == 1 else CompiledWhenCalled(mapped)

    def place(batch: dict[str, Any]) -> dict[str, jax.Array]:
        rows = {name: array.reshape(len(local), -1, *array.shape[1:]) for name, array in batch.items()}
        return jax.device_put(rows, each)

    # A copy on each device becomes one array of all devices and hosts, and back, without being moved.
    def whole(state: Any) -> Any:
        copies = lambda leaf: [shard.data[0] for shard in leaf.addressable_shards]
        together = lambda leaf: jax.make_array_from_single_device_arrays(leaf.shape[1:], everywhere, copies(leaf))
        return jax.tree.map(together, state)

    def spread(state: Any) -> Any:
        copies = lambda leaf: [shard.data[None] for shard in leaf.addressable_shards]
        apart = lambda leaf: jax.make_array_from_single_device_arrays((len(local), *leaf.shape), each, copies(leaf))
        return jax.tree.map(apart, state)

    return Programs(
        init=lambda seed: spread(jax.jit(init, static_argnums=0, out_shardings=everywhere)(seed)),
        update=over(update, out_axes=(0, None), donate_argnums=0),
        score=over(score, out_axes=None),
        place=place,
        whole=whole,
        spread=spread,
        remarks=(f"pmap over {jax.device_count()} devices",),
    )
