"""What each pass of a train step costs, by the names that jax gives to its instructions."""

import re
from typing import NamedTuple

from sage_jax.benchmark.hlo import Program
from sage_jax.compiling.counts import kind_of, reached
from sage_jax.compiling.traffic import traffic

KERNELS = ("fusions", "library", "single")
FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"  # the last with norms, clipping and moving averages


class Cost(NamedTuple):
    """kernels: what a device launches. moved: bytes that they read from the main memory and write to it, at most."""

    kernels: int
    moved: int


def costs_of_passes(program: Program) -> dict[str, Cost]:
    """The cost of each pass outside of loops. A kernel of several operations belongs to the pass of its last one."""
    found = {each.name: each for each in reached(program, program.entry, nested=False)}
    costs = {name: Cost(0, 0) for name in (FORWARD, BACKWARD, UPDATE)}
    for each in found.values():
        operation = re.search(r'op_name="([^"]*)"', each.rest)
        place = _pass_of(operation[1] if operation else "")
        kernels, moved = costs[place]
        costs[place] = Cost(kernels + (kind_of(each) in KERNELS), moved + traffic(each, found, program))
    return costs


def _pass_of(operation: str) -> str:
    if "transpose(jvp" in operation:
        return BACKWARD
    return FORWARD if "jvp" in operation else UPDATE
