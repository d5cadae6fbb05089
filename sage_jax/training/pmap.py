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


def over_devices(run: RunConfig, init: Callable, update: Callable, score: Callable) -> Programs:
    """The programs of a run under pmap; state, params and batches have an axis of this process's devices in front."""
    if run.mesh != MeshConfig():
        raise UserError("config.mesh is for config.parallel = mesh; pmap spreads rows over all devices, and nothing else")
    check_rows(run, jax.device_count())
    local = jax.local_devices()
    each = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())
    over = functools.partial(jax.pmap, axis_name=AXIS, in_axes=(0, 0))

    def place(batch: dict[str, Any]) -> dict[str, jax.Array]:
        rows = {name: array.reshape(len(local), -1, *array.shape[1:]) for name, array in batch.items()}
        return jax.device_put(rows, each)

    def whole(state: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data[0], state)
        return jax.device_put(first, everywhere)

    def spread(state: Any) -> Any:
        return jax.device_put(jax.tree.map(lambda leaf: jax.numpy.stack([leaf.addressable_data(0)] * len(local)), state), each)

    return Programs(
        init=lambda seed: spread(jax.jit(init, static_argnums=0)(seed)),
        update=over(functools.partial(update, axis=AXIS), out_axes=(0, None), donate_argnums=0),
        score=over(functools.partial(score, axis=AXIS), out_axes=None),
        place=place,
        whole=whole,
        spread=spread,
        remarks=(f"pmap over {jax.device_count()} devices",),
    )
