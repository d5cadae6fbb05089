"""The mesh partitioner: jit over a mesh of devices, with a rule table from parameter paths to shardings.

The mesh has three axes. The rows of a batch are sharded over `data` and `fsdp`. Parameters and optimizer state are sharded over
`fsdp` and gathered where they are used. Heads and hidden units are sharded over `tensor`. One device is a mesh of size 1.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sage_jax.config import MeshConfig, RunConfig
from sage_jax.errors import UserError
from sage_jax.programs import load_or_compile, shapes_of
from sage_jax.training.placement import TrainFunctions, check_batch_size

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))

# (pattern of the last key in a parameter's path, mesh axis of each dimension). The first match of the right rank applies.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Replicated: the tables are small, and the lookup gradient of a sharded table would be gathered in full.
    (r"(\w+_)?embedding(_\d+)?|places|lead", (None, None)),
    (r"head_\d+|pool|join", ("fsdp", None)),
    (r"query", ("fsdp", None, "tensor", None)),
    (r"key_value(_\d+)?", ("fsdp", None, "tensor", None)),
    (r"output", (None, "tensor", None, "fsdp")),
    (r"query|key|value", ("fsdp", "tensor", None)),  # attention of the nested event decoder
    (r"output", ("tensor", None, "fsdp")),
    (r"gate_up", ("fsdp", None, "tensor")),
    (r"up(_\d+)?", ("fsdp", "tensor")),
    (r"down(_\d+)?", ("tensor", "fsdp")),
    (r"gates|candidate", ("fsdp", None)),
    (r"scale|bias", (None,)),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of all devices. Raises UserError if its size differs from the number of devices."""
    devices = jax.device_count()
    rest = config.fsdp * config.tensor
    data = config.data or devices // rest
    if data * rest != devices:
        requested = " x ".join(f"{axis} {getattr(config, axis) or 'the rest'}" for axis in AXES)
        raise UserError(f"config.mesh is {requested}, but there are {devices} devices; give sizes whose product is {devices}")
    # With Explicit axes, jax's default, every table lookup would need its output sharding.
    return jax.make_mesh((data, config.fsdp, config.tensor), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_hosts(mesh: Mesh) -> None:
    """Raises UserError if the tensor axis spans several hosts, so that they share rows."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    indices = NamedSharding(mesh, ROWS).addressable_devices_indices_map((rows,)).values()
    if len({str(index) for index in indices}) * jax.process_count() != rows:
        each = jax.local_device_count()
        raise UserError(
            f"config.mesh.tensor is {mesh.shape['tensor']}; give a divisor of {each}, the number of devices per host"
        )


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> tuple[PartitionSpec, list[str]]:
    """The sharding of an array, and the names of dimensions that stay whole because their mesh axis does not divide them.

    path: as in `paths`. The path of an optimizer moment ends with that of its parameter. Raises LookupError if no rule matches.
    """
    if not shape:
        return PartitionSpec(), []
    name = path.rpartition("/")[2]
    rule = next((rule for pattern, rule in RULES if re.fullmatch(pattern, name) and len(rule) == len(shape)), None)
    if rule is None:
        raise LookupError(f"no rule in training/sharding.py matches {path} {shape}")
    undivided = [
        f"{name} ({size} by {mesh.shape[axis]})"
        for size, axis in zip(shape, rule, strict=True)
        if axis and size % mesh.shape[axis]
    ]
    axes = (axis if axis and size % mesh.shape[axis] == 0 else None for size, axis in zip(shape, rule, strict=True))
    return PartitionSpec(*axes), undivided


def paths(tree: Any) -> Iterator[tuple[str, Any]]:
    """(path, leaf) pairs of a tree; the keys of a path are joined by /."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def mesh_partitioner(run: RunConfig, init: Callable, train_step: Callable, eval_step: Callable) -> TrainFunctions:
    """The train functions under jit, sharded by RULES.

    Raises UserError if the mesh does not fit the devices or the hosts, or the batch size does not fit the mesh.
    """
    mesh = make_mesh(run.mesh)
    check_hosts(mesh)
    check_batch_size(run, mesh.shape["data"] * mesh.shape["fsdp"])
    abstract = shapes_of(init, run.train.seed, key=run)
    specs = [partition_spec(path, leaf.shape, mesh) for path, leaf in paths(abstract)]
    on_mesh = lambda spec: NamedSharding(mesh, spec)
    state = jax.tree.unflatten(jax.tree.structure(abstract), [on_mesh(spec) for spec, _ in specs])
    batch, replicated = {"events": on_mesh(ROWS)}, on_mesh(PartitionSpec())
    # With a static seed the compiled function creates each shard of the state on its device.
    jitted_init = jax.jit(init, static_argnums=0, out_shardings=state)
    with_sharding = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    undivided = dict.fromkeys(name for _, names in specs for name in names)
    return TrainFunctions(
        init=lambda seed: load_or_compile(jitted_init, seed, key=run)(),
        train_step=jax.jit(train_step, in_shardings=(state, batch), out_shardings=(state, replicated), donate_argnums=0),
        eval_step=jax.jit(eval_step, in_shardings=(state.params, batch), out_shardings=replicated),
        shard_batch=functools.partial(jax.tree.map, functools.partial(jax.make_array_from_process_local_data, on_mesh(ROWS))),
        remarks=tuple(_remarks(mesh, list(undivided))),
        abstract_state=jax.tree.map(with_sharding, abstract, state),
    )


def _remarks(mesh: Mesh, undivided: list[str]) -> Iterator[str]:
    if mesh.size > 1:
        yield "a mesh of " + " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    if undivided:
        yield f"replicated along an axis that does not divide them: {', '.join(undivided)}"


def bytes_of_state(state: Any) -> int:
    """Bytes of a state on each device. `state` is real, or abstract with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
