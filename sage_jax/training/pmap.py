"""The pmap partitioner: each device holds the full state and its own rows of a batch; losses and gradients are summed.

jit over a mesh (sharding.py) covers this case too. This partitioner serves pmap-based experiments and cross-checks the mesh.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sage_jax.config import MeshConfig, RunConfig
from sage_jax.errors import UserError
from sage_jax.training.placement import TrainFunctions, check_batch_size

AXIS = "devices"


class CompiledWhenCalled:
    """A pmapped function that is compiled at its first call, for several hosts.

    There a function that pmap compiled ahead of time takes global arrays, while a call takes the local ones.
    """

    def __init__(self, function: Callable):
        self._function = function

    def lower(self, *_) -> "CompiledWhenCalled":
        return self

    def compile(self) -> Callable:
        return self._function


def pmap_partitioner(
    run: RunConfig, devices: Sequence[Any], init: Callable, train_step: Callable, eval_step: Callable
) -> TrainFunctions:
    """The train functions under pmap. State, parameters and batches have a leading axis of this host's devices.

    devices: all that jax has. Raises UserError if they are others, if config.mesh is set, or if the batch size is not a
    multiple of their number.
    """
    if list(devices) != jax.devices():
        raise UserError("config.partitioner is pmap, which takes all devices of this machine; give mesh to choose them")
    if run.mesh != MeshConfig():
        raise UserError("config.mesh is for config.partitioner = mesh; pmap shards only the rows of a batch, over all devices")
    check_batch_size(run, len(devices))
    local = jax.local_devices()
    per_device = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))
    replicated = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())

    def pmapped(function: Callable, **options: Any) -> Any:
        mapped = jax.pmap(functools.partial(function, axis_name=AXIS), axis_name=AXIS, in_axes=(0, 0), **options)
        return mapped if jax.process_count() == 1 else CompiledWhenCalled(mapped)

    def shard_batch(batch: dict[str, Any]) -> dict[str, jax.Array]:
        rows = {name: array.reshape(len(local), -1, *array.shape[1:]) for name, array in batch.items()}
        return jax.device_put(rows, per_device)

    # The per-device copies become one replicated array of all hosts, and back, without a transfer.
    def unshard_state(state: Any) -> Any:
        copies = lambda leaf: [shard.data[0] for shard in leaf.addressable_shards]
        join = lambda leaf: jax.make_array_from_single_device_arrays(leaf.shape[1:], replicated, copies(leaf))
        return jax.tree.map(join, state)

    def shard_state(state: Any) -> Any:
        copies = lambda leaf: [shard.data[None] for shard in leaf.addressable_shards]
        split = lambda leaf: jax.make_array_from_single_device_arrays((len(local), *leaf.shape), per_device, copies(leaf))
        return jax.tree.map(split, state)

    return TrainFunctions(
        init=lambda seed: shard_state(jax.jit(init, out_shardings=replicated)(seed)),
        train_step=pmapped(train_step, out_axes=(0, None), donate_argnums=0),
        eval_step=pmapped(eval_step, out_axes=None),
        shard_batch=shard_batch,
        unshard_state=unshard_state,
        shard_state=shard_state,
        remarks=(f"pmap over {len(devices)} devices",),
    )
