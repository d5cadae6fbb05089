"""Compiles a program for a target, and describes what came out."""

import dataclasses
import time
from typing import Any

import jax

from sage_jax.benchmark.communication import Collective, collectives, totals
from sage_jax.benchmark.hlo import Program
from sage_jax.compiling.counts import Counts, copies_of, count
from sage_jax.compiling.memory import Memory, check_fits, stated_excess
from sage_jax.compiling.passes import Cost, costs_of_passes
from sage_jax.compiling.programs import Lowered
from sage_jax.compiling.targets import Target
from sage_jax.compiling.traffic import main_memory_bytes
from sage_jax.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Report:
    """What a compiled program does on each device, in bytes and seconds.

    once, nested: its instructions outside and inside of loops and conditionals. copies: of arrays of the size of one of the
    cache's buffers. accessed: bytes that kernels read and write by the compiler's count; None where it has none. moved: those
    that they read from the main memory and write to it, at most. passes: the cost of each pass of a train step. needed: bytes
    that an event step must read and write.
    memory, there: what the program needs and what the device has. hlo: the compiled program as text.
    """

    target: str
    device: str
    devices: int
    hosts: int
    program: str
    model: str
    mesh: dict[str, int]
    once: Counts
    nested: Counts
    copies: int | None
    accessed: float | None
    moved: int
    passes: dict[str, Cost]
    operations: float | None
    needed: int | None
    memory: Memory | None
    there: int | None
    collectives: list[tuple[Collective, int]]
    compile_seconds: float
    jax: str
    remarks: tuple[str, ...]
    hlo: str = dataclasses.field(repr=False)

    @property
    def ratio(self) -> float | None:
        """Bytes to and from the main memory for each byte that must be."""
        return self.moved / self.needed if self.needed else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the text of the program."""
        values = dataclasses.asdict(self) | {"ratio": self.ratio, "kernels": self.once.kernels + self.nested.kernels}
        del values["hlo"]
        values["passes"] = {name: cost._asdict() for name, cost in self.passes.items()}
        values["collectives"] = [call._asdict() | {"count": number} for call, number in self.collectives]
        if self.memory:
            values["memory"]["total"] = self.memory.total
        return values


def compile_program(lowered: Lowered, program: str, run: RunConfig, target: Target) -> Report:
    """Compiles. Raises UserError, with what would make it fit, if the program is too large for a device of the target."""
    devices = len(target.devices) if program == "train" else 1
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if excess := stated_excess(error):
            check_fits(program, run, devices, *excess)
        raise
    seconds = time.perf_counter() - began
    memory = Memory.of(compiled)
    if memory and target.memory:
        check_fits(program, run, devices, memory.total, target.memory)
    text = compiled.as_text() or ""
    parsed = Program.parse(text)
    once, nested = count(parsed)
    passes = costs_of_passes(parsed) if program == "train" else {}
    costs: Any = compiled.cost_analysis() or {}
    return Report(
        target.name,
        target.devices[0].device_kind,
        devices,
        target.hosts if program == "train" else 1,
        program,
        run.model.name,
        dict(lowered.mesh),
        once,
        nested,
        copies_of(parsed, lowered.cache_buffers) if lowered.cache_buffers else None,
        costs.get("bytes accessed"),
        sum(cost.moved for cost in passes.values()) if passes else main_memory_bytes(parsed),
        passes,
        costs.get("flops"),
        lowered.needed,
        memory,
        target.memory,
        totals(collectives(parsed, lowered.mesh)),
        seconds,
        jax.__version__,
        lowered.remarks,
        text,
    )


def lines(report: Report) -> list[str]:
    """The report as text."""
    many = f"{report.devices} devices of {report.hosts} hosts" if report.devices > 1 else "one device"
    found = [f"{report.program} of {report.model} for {report.target} ({report.device}, {many}), jax {report.jax}"]
    found += report.remarks
    found.append(f"kernels: {_counts(report.once)}")
    if any(dataclasses.astuple(report.nested)):
        found.append(f"in loops and branches, each counted once: {_counts(report.nested)}")
    if report.copies is not None:
        found.append(f"copies of buffers of the cache: {report.copies}")
    found.append(f"bytes accessed: {_mib(report.accessed) if report.accessed else 'not stated by this compiler'}")
    found.append(f"bytes of the main memory: {_mib(report.moved)}")
    for name, cost in report.passes.items():
        found.append(f"{name}: {cost.kernels} kernels, {_mib(cost.moved)} of the main memory")
    if report.needed:
        ratios = f"main memory / needed: {report.ratio:.2f}"
        if report.accessed:
            ratios = f"accessed / needed: {report.accessed / report.needed:.2f}; {ratios}"
        found.append(f"bytes needed (parameters and cache): {_mib(report.needed)}; {ratios}")
    if report.memory:
        memory = report.memory
        there = f" of {_mib(report.there)}" if report.there else ""
        parts = f"{_mib(memory.arguments)} arguments, {_mib(memory.temporary)} temporary, {_mib(memory.program)} program"
        found.append(f"memory of each device: {_mib(memory.total)}{there} ({parts})")
    for call, number in report.collectives:
        along = f" along {call.axes}" if call.axes else ""
        found.append(f"{number} x {call.kind}{along}: {_mib(call.bytes)} in all")
    return [*found, f"compiled in {report.compile_seconds:.0f} s"]


def _counts(counts: Counts) -> str:
    named = {field: number for field, number in dataclasses.asdict(counts).items() if number}
    return f"{counts.kernels} ({', '.join(f'{number} {field}' for field, number in named.items())})"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
