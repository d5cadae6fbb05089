"""A run over a mesh of devices: which dimension of which array lies on which axis of it.

The mesh has three axes. Rows of a batch go to `data` and `fsdp`; parameters and what the optimizer knows of them are cut
along `fsdp` and come together where they are used; heads and hidden units are cut along `tensor`. One device is a mesh too.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sage_jax.errors import UserError
from sage_jax.training.config import MeshConfig, RunConfig
from sage_jax.training.placed import Programs, check_rows

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))

# The end of a parameter's path: the axis of each of its dimensions, as many as it has.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Small, and the gradient of a lookup in a table that is cut would be gathered whole.
    (r"(\w+_)?embedding(_\d+)?|places|lead", (None, None)),
    (r"head_\d+|pool|join", ("fsdp", None)),
    (r"query", ("fsdp", None, "tensor", None)),
    (r"key_value(_\d+)?", ("fsdp", None, "tensor", None)),
    (r"output", (None, "tensor", None, "fsdp")),
    (r"query|key|value", ("fsdp", "tensor", None)),  # of the nested decoder's attention
    (r"output", ("tensor", None, "fsdp")),
    (r"gate_up", ("fsdp", None, "tensor")),
    (r"up(_\d+)?", ("fsdp", "tensor")),
    (r"down(_\d+)?", ("tensor", "fsdp")),
    (r"gates|candidate", ("fsdp", None)),
    (r"scale|bias", (None,)),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of all devices. Raises UserError where they are not as many as it needs."""
    devices = jax.device_count()
    rest = config.fsdp * config.tensor
    data = config.data or devices // rest
    if data * rest != devices:
        wanted = " x ".join(f"{axis} {getattr(config, axis) or 'the rest'}" for axis in AXES)
        raise UserError(f"config.mesh is {wanted}, but there are {devices} devices; give sizes whose product is {devices}")
    # Explicit axes, which are jax's default, would want a sharding told of every lookup in a table.
    return jax.make_mesh((data, config.fsdp, config.tensor), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_hosts(mesh: Mesh) -> None:
    """Raises UserError unless each host has rows of its own, which it has not where the tensor axis leads to another one."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    indices = NamedSharding(mesh, ROWS).addressable_devices_indices_map((rows,)).values()
    if len({str(index) for index in indices}) * jax.process_count() != rows:
        each = jax.local_device_count()
        raise UserError(f"config.mesh.tensor is {mesh.shape['tensor']}; give a divisor of the {each} devices that each host has")


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> tuple[PartitionSpec, list[str]]:
    """How an array is cut, and what it is not cut by: along an axis that doesn't divide a dimension it is whole everywhere.

    path: as of `paths`; of what the optimizer knows of a parameter, that of the parameter is its end. Raises LookupError for
    an array that no rule is for.
    """
    if not shape:
        return PartitionSpec(), []
    name = path.rpartition("/")[2]
    rule = next((rule for pattern, rule in RULES if re.fullmatch(pattern, name) and len(rule) == len(shape)), None)
    if rule is None:
        raise LookupError(f"no rule of training/sharding.py is for {path} {shape}")
    refused = [
        f"{path.rpartition('/')[2]} ({size} by {mesh.shape[axis]})"
        for size, axis in zip(shape, rule, strict=True)
        if axis and size % mesh.shape[axis]
    ]
    cut = (axis if axis and size % mesh.shape[axis] == 0 else None for size, axis in zip(shape, rule, strict=True))
    return PartitionSpec(*cut), refused


def paths(tree: Any) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of a tree, the path with a / between its keys."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def over_mesh(run: RunConfig, init: Callable, update: Callable, score: Callable) -> Programs:
    """The programs of a run under jit, their arguments and results placed by the rules. Raises UserError as make_mesh."""
    mesh = make_mesh(run.mesh)
    check_hosts(mesh)
    check_rows(run, mesh.shape["data"] * mesh.shape["fsdp"])
    abstract = jax.eval_shape(init, run.train.seed)
    specs = [spec_of(path, leaf.shape, mesh) for path, leaf in paths(abstract)]
    on_mesh = lambda spec: NamedSharding(mesh, spec)
    state = jax.tree.unflatten(jax.tree.structure(abstract), [on_mesh(spec) for spec, _ in specs])
    rows, everywhere = on_mesh(ROWS), on_mesh(PartitionSpec())
    refused = dict.fromkeys(each for _, refusals in specs for each in refusals)
    return Programs(
        # The seed is static: its program is run once, and makes each part of the state where it belongs.
        init=jax.jit(init, static_argnums=0, out_shardings=state),
        update=jax.jit(update, in_shardings=(state, {"events": rows}), out_shardings=(state, everywhere), donate_argnums=0),
        score=jax.jit(score, in_shardings=(state.params, {"events": rows}), out_shardings=everywhere),
        place=lambda batch: jax.tree.map(functools.partial(jax.make_array_from_process_local_data, rows), batch),
        remarks=tuple(_remarks(mesh, list(refused))),
    )


def _remarks(mesh: Mesh, refused: list[str]) -> Iterator[str]:
    if mesh.size > 1:
        yield "a mesh of " + " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    if refused:
        yield f"whole on every device of an axis that doesn't divide them: {', '.join(refused)}"


def bytes_of_state(state: Any) -> int:
    """What a device holds of a state, in bytes; of an abstract one with shardings, or of a real one."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
    )
