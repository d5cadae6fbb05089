"""Whether a program fits the memory of its device, and what would make it fit."""

import dataclasses
import math
import re
from collections.abc import Iterator

import jax

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.registry import abstract_params

NO_ADVICE = "by estimate no single one of mesh.fsdp, model.remat and train.batch_size makes it fit: combine them"
STATE_COPIES = 4  # in training: parameters, gradients and two moments of Adam, all float32
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# Two messages of libtpu.
_USED = re.compile(r"(?:Used |temporaries \()([\d.]+)([KMGT]?)(?: of |\) exceeds available HBM \()([\d.]+)([KMGT]?)")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a program on each device. aliased: of its outputs that take the place of arguments.

    temporary: at the worst moment, besides arguments and outputs. program: of the compiled code.
    """

    arguments: int
    outputs: int
    aliased: int
    temporary: int
    program: int

    @classmethod
    def of(cls, compiled: jax.stages.Compiled) -> "Memory | None":
        """What the compiler states; None where it states nothing."""
        stated = compiled.memory_analysis()
        if stated is None:
            return None
        sizes = ("argument_size", "output_size", "alias_size", "temp_size", "generated_code_size")
        return cls(*(int(getattr(stated, f"{size}_in_bytes")) for size in sizes))

    @property
    def total(self) -> int:
        """Bytes that the device needs for it."""
        return self.arguments + self.outputs - self.aliased + self.temporary + self.program


def stated_excess(error: Exception) -> tuple[float, float] | None:
    """(bytes used, bytes there) from a compiler's message that a program does not fit; None for another error."""
    found = _USED.search(str(error))
    return (float(found[1]) * UNITS[found[2]], float(found[3]) * UNITS[found[4]]) if found else None


def check_fits(program: str, run: RunConfig, devices: int, used: float, there: float) -> None:
    """Raises UserError, with what would make it fit, if a program uses more bytes of each device than are there."""
    if used <= there:
        return
    is_training = program == "train"
    advice = list(training_advice(run, devices, used, there)) if is_training else ["fewer --rows", "a smaller --capacity"]
    raise UserError(
        f"the {program} program needs {used / 2**30:.2f} GiB of each device, {(used - there) / 2**30:.2f} GiB more than its "
        f"{there / 2**30:.2f}; {'by estimate, one of these makes it fit: ' + ', '.join(advice) if advice else NO_ADVICE}"
    )


def training_advice(run: RunConfig, devices: int, used: float, there: float) -> Iterator[str]:
    """The fields that, changed alone, make a train step fit by estimate.

    The state of a run is known: STATE_COPIES of its parameters, divided by the mesh. All other bytes are taken as activations,
    which grow with the rows of a micro-batch on each device.
    """
    parameters = 4 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(run.model)))
    state = lambda fsdp: STATE_COPIES * parameters / (fsdp * run.mesh.tensor)
    activations = max(used - state(run.mesh.fsdp), 0)
    for fsdp in range(run.mesh.fsdp + 1, devices // run.mesh.tensor + 1):
        if devices % (fsdp * run.mesh.tensor) == 0 and state(fsdp) + activations <= there:
            yield f"--config.mesh.fsdp={fsdp}"
            break
    shards = devices // run.mesh.tensor
    rows = run.train.batch_size // (shards * run.train.grad_accum_steps)  # of a micro-batch, on each device
    left = there - state(run.mesh.fsdp)
    fitting = math.floor(rows * left / activations) if activations else 0
    if 0 < fitting < rows:
        steps = next(steps for steps in range(1, rows + 1) if rows % steps == 0 and rows // steps <= fitting)
        yield f"--config.train.batch_size={fitting * shards * run.train.grad_accum_steps}"
        yield f"--config.train.grad_accum_steps={steps * run.train.grad_accum_steps}"
    layers = run.model.num_layers
    width = run.model.embed_dim * (2 if run.model.dtype == "bfloat16" else 4)
    inputs = layers * rows * run.context * run.model.tokens_per_event * width  # all that remat=full keeps
    if run.model.remat != "full" and state(run.mesh.fsdp) + inputs + activations / layers <= there:
        yield "--config.model.remat=full"
