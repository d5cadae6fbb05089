"""The programs that can be compiled for a target, lowered from abstract arrays: no parameter is ever made.

Decoding is for one device: the first of the target. Training is for all of them, over the mesh of the run.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from sage_jax.benchmark.roofline import event_step_cost
from sage_jax.compiling.targets import Target
from sage_jax.config import RunConfig
from sage_jax.decoding.engine import FIRST_CHUNKS, Engine
from sage_jax.errors import UserError
from sage_jax.models.registry import abstract_params
from sage_jax.programs import layout_of
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.config import MERGES_FILE
from sage_jax.training.train_functions import abstract_batch, make_train_functions

# A program's name here and in the engine.
DECODING = {"decode": "event_step", "loop": "decode", "prefill": "prefill", "begin": "begin"}
PROGRAMS = (*DECODING, "train")


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program before it is compiled.

    compile: compiles it. mesh: axes and sizes of the devices that it runs on. cache_buffers: the sizes in bytes that buffers of
    the cache have, none in training. needed: bytes that an event step must read and write; None for other programs. remarks:
    about the placement, for the user.
    """

    compile: Callable[[], jax.stages.Compiled]
    mesh: Mapping[str, int]
    cache_buffers: frozenset[int] = frozenset()
    needed: int | None = None
    remarks: tuple[str, ...] = ()


def representation_of(run: RunConfig, workdir: pathlib.Path | None) -> Tokenizer:
    """The tokenizer of a run. Raises UserError if it needs merges and `workdir`, a run's folder, has none."""
    if run.representation.merges and not (workdir and (workdir / MERGES_FILE).exists()):
        raise UserError(
            f"config.representation.merges is {run.representation.merges}, and merges are learned when a run starts; give "
            "--workdir of a run that has them, or merges=0"
        )
    return run.representation.learn(run.tokenizer, (), workdir or pathlib.Path())


def lower(name: str, run: RunConfig, representation: Tokenizer, target: Target, rows: int, capacity: int) -> Lowered:
    """The program `name`, one of PROGRAMS. rows, capacity: of the engine; training has none.

    Raises UserError if the run's mesh or batch does not fit the target, or a library that it needs is missing.
    """
    if name == "train":
        return lower_training(run, representation, target)
    return lower_decoding(name, run, representation, target, rows, capacity)


def lower_decoding(name: str, run: RunConfig, representation: Tokenizer, target: Target, rows: int, capacity: int) -> Lowered:
    """A program of the engine for `rows` rows of `capacity` events on the first device of the target."""
    engine = Engine(
        run.model, abstract_params(run.model), representation, context=capacity, rows=rows, device=target.devices[0]
    )
    count = {"prefill": engine.chunk, "begin": FIRST_CHUNKS[1]}.get(name, 0)
    if capacity <= count:
        raise UserError(f"--capacity is {capacity}; --program={name} reads {count} events at once: give more")
    function, arguments, donated = engine.definition(DECODING[name], rows, capacity, count if name == "begin" else 0)
    whole = NamedSharding(Mesh(np.array(target.devices[:1]), ("device",)), PartitionSpec())

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        layout = layout_of(leaf)  # that of a parameter on a GPU
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=Format(layout, whole) if layout else whole)

    placed = jax.tree.map(place, arguments)
    buffers = jax.tree.leaves(arguments[1].cache.buffers)

    def compile() -> jax.stages.Compiled:
        with jax.sharding.use_abstract_mesh(_mesh_of(target.devices[0])):  # a kernel of Pallas looks there for its device
            lowered = jax.jit(function, donate_argnums=donated).lower(*placed)
        return lowered.compile()

    return Lowered(
        compile,
        {},
        frozenset(math.prod(buffer.shape) * buffer.dtype.itemsize for buffer in buffers),
        event_step_cost(run.model, rows, capacity)[0] if name == "decode" else None,
    )


def _mesh_of(device: Any) -> AbstractMesh:
    """One device that need not be there."""
    abstract = AbstractDevice(device.device_kind, getattr(device, "core_count", None), device.platform)
    return AbstractMesh((1,), ("device",), (AxisType.Auto,), abstract_device=abstract)


def lower_training(run: RunConfig, representation: Tokenizer, target: Target) -> Lowered:
    """The train step of a run over all devices of the target."""
    try:
        functions = make_train_functions(run, representation, target.devices)
    except RuntimeError as error:  # jax looks for the library whose flash attention the step calls
        if "cuDNN" not in str(error):
            raise
        raise UserError(
            f"--target={target.name} --program=train needs cuDNN, which is not installed: pip install nvidia-cudnn-cu13, or "
            "give --config.model.attention_impl=chunked"
        ) from error
    if functions.abstract_state is None:
        raise UserError("config.partitioner is pmap, whose programs are for the devices of this machine; give mesh")
    compile = lambda: functions.train_step.lower(functions.abstract_state, abstract_batch(run)).compile()
    mesh: Any = jax.tree.leaves(functions.abstract_state)[0].sharding.mesh.shape
    return Lowered(compile, dict(mesh), remarks=functions.remarks)
