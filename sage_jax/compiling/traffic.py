"""Bytes between a program's kernels and the main memory of its device, counted in its HLO text.

A compiler's own "bytes accessed" counts what a kernel reads from the vector memory of a TPU like what it reads from the main
memory, and counts what is fetched ahead of its use three times. Only the main memory limits how fast an event can be drawn.
"""

from sage_jax.benchmark.hlo import Instruction, Program
from sage_jax.compiling.counts import is_free, reached

UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # place of the operand that they write into the first one
SLICES = {"dynamic-slice", "gather", "slice"}  # they read no more than they return


def main_memory_bytes(program: Program) -> int:
    """Bytes that the kernels outside of loops and conditionals read from the main memory and write to it, at most.

    Each array that a kernel reads counts as a whole, except where it only slices or updates it.
    """
    found = {each.name: each for each in reached(program, program.entry, nested=False)}
    return sum(traffic(each, found, program) for each in found.values())


def traffic(instruction: Instruction, others: dict[str, Instruction], program: Program) -> int:
    """Those of one instruction. others: the instructions around it, by name."""
    opcode = instruction.opcode
    if is_free(instruction) or opcode in ("while", "conditional"):
        return 0
    operands = {place: others[name] for place, name in enumerate(instruction.operands) if name in others}
    results = instruction.arrays
    if opcode.endswith("-start"):  # returns what it reads and what it writes, the smaller of which was moved
        moved = min((array.bytes for array in results[:2]), default=0)
        return moved * sum(array.space == 0 for array in results[:2])
    inside, last = _inside(instruction, program)
    if last.opcode in UPDATES:  # in place
        update = last.operands[UPDATES[last.opcode] :][:1]
        written = sum(array.bytes for name in update if name in inside for array in inside[name].arrays)
        written = written or sum(array.bytes for name in update if name in others for array in others[name].arrays)
        target = results[0]
        rest = {
            place: each for place, each in operands.items() if all(array.bytes != target.bytes for array in each.arrays)
        }
        return _in_main(rest, inside) + (2 * written if target.space == 0 else 0)
    if opcode in SLICES:
        return 2 * sum(array.bytes for array in results if array.space == 0)
    return sum(array.bytes for array in results if array.space == 0) + _in_main(operands, inside)


def _inside(instruction: Instruction, program: Program) -> tuple[dict[str, Instruction], Instruction]:
    """The instructions of a fusion by name, and the one whose value it returns; else the instruction itself."""
    if instruction.opcode != "fusion":
        return {}, instruction
    body = program.computations.get(dict(instruction.called).get("calls", ""), [])
    last = next((each for each in body if each.is_root), instruction)
    inside = {each.name: each for each in body}
    while last.opcode in ("bitcast", "convert") and last.operands and last.operands[0] in inside:
        last = inside[last.operands[0]]
    return inside, last


def _in_main(operands: dict[int, Instruction], inside: dict[str, Instruction]) -> int:
    """Bytes of the operands, by place, that lie in the main memory. What a fusion only slices counts as the slice."""
    parameters = {each.rest.partition(")")[0].strip("("): each.name for each in inside.values() if each.opcode == "parameter"}
    total = 0
    for place, operand in operands.items():
        name = parameters.get(str(place))
        readers = [each for each in inside.values() if name in each.operands] if name else []
        if readers and all(each.opcode in SLICES and each.operands[0] == name for each in readers):
            total += sum(array.bytes for each in readers for array in each.arrays[:1])
        else:
            total += sum(array.bytes for array in operand.arrays if array.space == 0)
    return total
