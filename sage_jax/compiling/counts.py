"""What a compiled program does, counted in its HLO text: kernels, branches, loops, and copies of large buffers."""

import dataclasses
from collections.abc import Collection, Iterator

from sage_jax.benchmark.communication import COLLECTIVES
from sage_jax.benchmark.hlo import Instruction, Program

# They move no data, or stand for the end of what another instruction started.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency", "opt-barrier"}
FREE |= {"partition-id", "replica-id", "domain"}
NO_KERNELS = ('"AllocateBuffer"', '"ConcatBitcast"')  # targets of custom calls that only name memory
ENDINGS = ("-done", "-update")
TRANSFERS = ("copy-start", "slice-start", "dynamic-slice-start")  # asynchronous copies between memories
SCALAR_BYTES = 8
COPIES = {"copy", "copy-start", "transpose"}


@dataclasses.dataclass(frozen=True)
class Counts:
    """Instructions of each kind. A loop's body counts once, however often it runs.

    fusions: kernels that the compiler makes of several operations. library: calls of a library or of a kernel that was given.
    single: operations that run alone, such as a sort. scalar: those whose result is one number, for which a TPU has a processor
    of its own. transfers: asynchronous copies between memories. collectives, conditionals, loops: as named.
    """

    fusions: int = 0
    library: int = 0
    single: int = 0
    scalar: int = 0
    transfers: int = 0
    collectives: int = 0
    conditionals: int = 0
    loops: int = 0

    @property
    def kernels(self) -> int:
        """Fusions, library calls and single operations: what a device launches one after another."""
        return self.fusions + self.library + self.single


def count(program: Program) -> tuple[Counts, Counts]:
    """(what runs once in each call, what is in the branches of conditionals and the bodies of loops)."""
    once = reached(program, program.entry, nested=False)
    nested = reached(program, program.entry, nested=True)
    return _count(once), _count(nested)


def copies_of(program: Program, sizes: Collection[int]) -> int:
    """Copies and transpositions of arrays of these sizes in bytes to the main memory, alone or as the end of a fusion."""
    instructions = [*reached(program, program.entry, nested=False), *reached(program, program.entry, nested=True)]
    copied = 0
    for instruction in instructions:
        last = instruction
        if instruction.opcode == "fusion":
            last = program.root(dict(instruction.called).get("calls", "")) or instruction
        results = instruction.arrays[:1]  # a start returns its operand, too
        copied += last.opcode in COPIES and any(array.bytes in sizes and array.space == 0 for array in results)
    return copied


def reached(program: Program, name: str, nested: bool) -> Iterator[Instruction]:
    """The instructions that run when computation `name` does: those in its loops and branches if `nested`, else the others."""
    for instruction in program.computations.get(name, []):
        if not nested:
            yield instruction
        if instruction.opcode in ("while", "conditional"):
            for attribute, called in instruction.called if nested else ():
                if attribute != "condition":
                    yield from reached(program, called, nested=False)
                    yield from reached(program, called, nested=True)
        elif instruction.opcode == "call":
            for _, called in instruction.called:
                yield from reached(program, called, nested)


def _count(instructions: Iterator[Instruction]) -> Counts:
    totals = dict.fromkeys((field.name for field in dataclasses.fields(Counts)), 0)
    for instruction in instructions:
        if kind := kind_of(instruction):
            totals[kind] += 1
    return Counts(**totals)


def is_free(instruction: Instruction) -> bool:
    """Whether it runs nothing itself: it names memory, stands for the end of another one, or calls a computation."""
    opcode = instruction.opcode
    if opcode == "custom-call" and instruction.attribute("custom_call_target") in NO_KERNELS:
        return True
    return opcode in FREE or opcode.endswith(ENDINGS) or opcode == "call"


def kind_of(instruction: Instruction) -> str | None:
    """The field of Counts that it belongs to; None for one that runs nothing itself."""
    opcode = instruction.opcode
    if is_free(instruction):
        return None
    kinds = {"fusion": "fusions", "custom-call": "library", "conditional": "conditionals", "while": "loops"}
    if opcode in kinds:
        return kinds[opcode]
    if opcode.removesuffix("-start") in COLLECTIVES:
        return "collectives"
    if opcode in TRANSFERS:
        return "transfers"
    return "scalar" if all(array.bytes <= SCALAR_BYTES for array in instruction.arrays) else "single"
