"""The mesh partitioner: jit over a mesh of devices, with a rule table from parameter paths to shardings.

The mesh has three axes. The rows of a batch are sharded over `data` and `fsdp`. Parameters and optimizer state are sharded over
`fsdp` and gathered where they are used. Heads and hidden units are sharded over `tensor`. One device is a mesh of size 1.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sage_jax.config import MeshConfig, RunConfig
from sage_jax.errors import UserError
from sage_jax.programs import shapes_of, stored
from sage_jax.training.placement import TrainFunctions, check_batch_size

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))

# (pattern of the last key in a parameter's path, mesh axis of each dimension). The first match of the right rank applies.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Replicated: the tables are small, and the lookup gradient of a sharded table would be gathered in full.
    (r"(\w+_)?embedding(_\d+)?(_track|_given)?|places|lead", (None, None)),
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


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of `devices`, by default all that jax has. Raises UserError if its size differs from their number."""
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    rest = config.fsdp * config.tensor
    data = config.data or count // rest
    if data * rest != count:
        requested = " x ".join(f"{axis} {getattr(config, axis) or 'the rest'}" for axis in AXES)
        raise UserError(f"config.mesh is {requested}, but there are {count} devices; give sizes whose product is {count}")
    # With Explicit axes, jax's default, every table lookup would need its output sharding.
    types = (AxisType.Auto,) * len(AXES)
    shape = (data, config.fsdp, config.tensor)
    try:
        mesh = jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
        if not spans_hosts(mesh.devices):
            return mesh
    except NotImplementedError:  # no axis of the pod has this size
        pass
    return Mesh(host_by_host(devices).reshape(shape), AXES, axis_types=types)


def host_by_host(devices: Sequence[Any]) -> np.ndarray:
    """The devices, those of a host beside each other, so that the last axis of a mesh stays within hosts where it can.

    On a TPU pod jax orders them by their place in the pod, where a line of four chips belongs to two hosts.
    """
    return np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))


def spans_hosts(devices: np.ndarray) -> bool:
    """Whether devices [data, fsdp, tensor] that differ only along the tensor axis belong to several hosts."""
    hosts = _hosts(devices)
    return bool((hosts != hosts[..., :1]).any())


def _hosts(devices: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda device: device.process_index, otypes=[int])(devices)


def check_hosts(mesh: Mesh) -> None:
    """Raises UserError if the tensor axis spans several hosts, so that they share rows."""
    if spans_hosts(mesh.devices):
        each = int(np.unique(_hosts(mesh.devices), return_counts=True)[1].min())
        raise UserError(
            f"config.mesh.tensor is {mesh.shape['tensor']}; give a divisor of {each}, the number of devices per host"
        )


def traced_on(mesh: Mesh, function: functools.partial) -> Callable:
    """`function`, traced under `mesh`, so that a model can know whether its arrays are sharded (models/dense.py).

    On one device nothing is set: its program is the same without a mesh.
    """
    if mesh.size == 1:
        return function

    @functools.wraps(function.func)  # whose name is the program's
    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


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


def mesh_partitioner(
    run: RunConfig,
    devices: Sequence[Any],
    init: functools.partial,
    train_step: functools.partial,
    eval_step: functools.partial,
) -> TrainFunctions:
    """The train functions under jit, sharded over `devices` by RULES.

    devices: those of jax, or of a topology that is not there: then the functions can only be compiled. Raises UserError if the
    mesh does not fit the devices or their hosts, or the batch size does not fit the mesh.
    """
    mesh = make_mesh(run.mesh, devices)
    check_hosts(mesh)
    check_batch_size(run, mesh.shape["data"] * mesh.shape["fsdp"])
    step, score = traced_on(mesh, train_step), traced_on(mesh, eval_step)
    begin = jax.jit(traced_on(mesh, init))  # traced once for its shapes and its program
    abstract = shapes_of(begin, np.int32(run.train.seed), key=run)
    specs = [partition_spec(path, leaf.shape, mesh) for path, leaf in paths(abstract)]
    on_mesh = lambda spec: NamedSharding(mesh, spec)
    state = jax.tree.unflatten(jax.tree.structure(abstract), [on_mesh(spec) for spec, _ in specs])
    batch, replicated = on_mesh(ROWS), on_mesh(PartitionSpec())
    # The compiled function creates each shard of the state on its device. One program serves all seeds.
    create = stored(jax.jit(begin, out_shardings=state), key=run)
    undivided = dict.fromkeys(name for _, names in specs for name in names)
    shard = functools.partial(jax.make_array_from_process_local_data, on_mesh(ROWS))
    return TrainFunctions(
        init=lambda seed: create(np.int32(seed)),
        train_step=jax.jit(step, in_shardings=(state, batch), out_shardings=(state, replicated), donate_argnums=0),
        eval_step=jax.jit(score, in_shardings=(state.params, batch), out_shardings=replicated),
        shard_batch=functools.partial(jax.tree.map, shard),
        remarks=tuple(_remarks(mesh, list(undivided))),
        abstract_state=jax.tree.map(
            lambda leaf, on: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on), abstract, state
        ),
    )


def _remarks(mesh: Mesh, undivided: list[str]) -> Iterator[str]:
    if mesh.size > 1:
        yield "a mesh of " + " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    if undivided:
        yield f"replicated along an axis that does not divide them: {', '.join(undivided)}"


def bytes_of_state(state: Any) -> int:
    """Bytes of a state on each device. `state` is real, or abstract with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
