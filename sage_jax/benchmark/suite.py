"""The benchmark: cells of systems that take turns on the same cores, and a line of JSON for each measurement."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from sage_jax.benchmark.systems import PEERS, PEERS_PYTHON, ROOT, fields_of
from sage_jax.environment import commit
from sage_jax.errors import UserError
from sage_jax.models.config import ModelConfig
from sage_jax.music.events import NUM_ATTRIBUTES, NoteEvents

MEASUREMENTS = "measurements.jsonl"
Job = tuple[list[str], dict[str, Any]]  # the command of a worker, and its job
GROWTH = {"context": "context_events", "batch": "batch", "width": "width", "layers": "layers"}


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure. Raises UserError naming the field.

    model: width, layers, heads, head_width and mlp_width of every system. dtype: of weights and cache. rounds: turns of each
    system, the first of which is not counted. events: notes drawn in a turn. workdir: of a checkpoint to measure too, under
    the name "checkpoint". reference: the system that others are compared to. featured: the one that is compared to the others.
    tables: by name, the systems, batches and contexts (in tokens) of a table, and what its model has of its own.
    growth: systems, and the values of context (in events), batch, width and layers that they grow through.
    """

    model: Mapping[str, int]
    dtype: str
    rounds: int
    events: int
    seed: int
    workdir: str
    reference: str
    featured: str
    tables: Mapping[str, Mapping[str, Any]]
    growth: Mapping[str, Any]

    def __post_init__(self):
        for field, least in (("rounds", 2), ("events", 1)):
            if getattr(self, field) < least:
                raise UserError(f"config.{field} is {getattr(self, field)}; give at least {least}")
        for cell in self.cells():
            if self.reference not in cell.systems and not cell.table.startswith("growth"):
                raise UserError(f"config.tables.{cell.table}.systems lacks config.reference = {self.reference}")
            for system in cell.systems:
                if system not in PEERS and system != "checkpoint":
                    ModelConfig(vocab_sizes=NoteEvents().vocab_sizes, dtype=self.dtype, **cell.model, **fields_of(system))
            if cell.context_events <= cell.events:
                raise UserError(
                    f"config: {cell.table} has a context of {cell.context_events} events, too few to draw {cell.events}"
                )

    def cells(self) -> Iterator["Cell"]:
        """Every cell: the main table, the others, what grows."""
        for name, table in sorted(self.tables.items(), key=lambda item: (item[0] != "main", item[0])):
            systems = (*table["systems"], *(["checkpoint"] if self.workdir and name == "main" else []))
            model = {**self.model, **table.get("model", {})}
            for context in table.get("contexts", (1024,)):
                for batch in table.get("batches", (1,)):
                    yield Cell(name, systems, model, batch, context // NUM_ATTRIBUTES, table.get("events", self.events))
        usual = dict(context_events=1024 // NUM_ATTRIBUTES, batch=1)
        for field in GROWTH:
            for value in self.growth[field]:
                model = dict(self.model)
                if field in model:
                    model[field] = value
                    if field == "width":
                        model["mlp_width"], model["head_width"] = 3 * value, value // 8
                place = {**usual, **({GROWTH[field]: value} if GROWTH[field] in usual else {})}
                yield Cell(f"growth_{field}", tuple(self.growth["systems"]), model, events=self.events, **place)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Systems to be compared: the same model but for its form and sharing, the same batch and context, as many notes in a turn."""

    table: str
    systems: tuple[str, ...]
    model: Mapping[str, int]
    batch: int
    context_events: int
    events: int


class Worker:
    """The process of one subject; waits idle between its turns."""

    def __init__(self, command: list[str], job: dict[str, Any]):
        # Waiting costs nothing, and an accelerator's memory is shared.
        quiet = {"OMP_WAIT_POLICY": "passive", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **quiet}
        self._said = tempfile.TemporaryFile("w+")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
        self._process = subprocess.Popen([*command, json.dumps(job)], env=environment, cwd=ROOT, text=True, **pipes)
        self.about = self._answer()

    def run(self) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it died between its turns: its answer says so
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = [line for line in self._said.read().splitlines() if line.strip()]
            self.close()
            raise WorkerFailed(said[-1] if said else f"ended with exit code {code}")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()


class WorkerFailed(Exception):
    """A subject that could not be measured; its last words."""


def measure(config: BenchmarkConfig, output: pathlib.Path, console: Console) -> list[dict[str, Any]]:
    """Measures what is not yet in `output`'s measurements, a cell at a time, and returns all lines of this config."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / MEASUREMENTS
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    measured = commit()
    probe = Worker([sys.executable, "-m", "sage_jax.benchmark.roofline"], {"dtype": config.dtype})
    try:
        done = []
        for cell in config.cells():
            there = [line for line in lines if line["cell"] == _facts(config, cell)]
            if not there:
                console.print(f"{cell.table}: batch {cell.batch}, {cell.context_events} events", highlight=False)
                there = measure_cell(config, cell, probe, measured, console)
                with path.open("a") as file:
                    file.write("".join(json.dumps(line) + "\n" for line in there))
            done += there
        return done
    finally:
        probe.close()


def measure_cell(
    config: BenchmarkConfig, cell: Cell, probe: Worker, measured: str, console: Console
) -> list[dict[str, Any]]:
    """One line for each system of a cell."""
    setting = {"commit": measured, "cell": _facts(config, cell)}
    return take_turns(cell.systems, functools.partial(_job, config, cell), config.rounds, probe, setting, console)


def take_turns(
    systems: Sequence[str],
    job_of: Callable[[str], Job],
    rounds: int,
    probe: Worker,
    setting: Mapping[str, Any],
    console: Console,
) -> list[dict[str, Any]]:
    """One line for each system: all are made ready, then take turns, with the probe of the device before each round.

    job_of: the command of a system's worker, and its job. rounds: turns, the first of which is not counted. setting: what
    stands in each line.
    """
    failed, workers = [], {}

    def give_up(system: str, error: WorkerFailed) -> None:
        failed.append({"system": system, "failed": str(error)[:300], **setting})
        console.print(f"  {system}: not measured: {error}", highlight=False, markup=False)

    try:
        for system in systems:
            try:
                workers[system] = Worker(*job_of(system))
            except WorkerFailed as error:
                give_up(system, error)
        probes, runs = [], {system: [] for system in workers}
        for _ in range(rounds):
            probes.append(probe.run())
            for system, worker in list(workers.items()):
                try:
                    runs[system].append(worker.run())
                except WorkerFailed as error:
                    give_up(system, error)
                    del workers[system]
        device = {name: [each[name] for each in probes[1:]] for name in ("bytes_per_second", "operations_per_second")}
        lines = []
        for system, worker in workers.items():
            prefills = [run["prefill_seconds"] for run in runs[system] if run["prefill_seconds"] is not None]
            lines.append(
                {
                    "system": system,
                    **setting,
                    "device": device,
                    "about": worker.about,
                    "prefill_seconds": prefills[1:] or prefills,
                    "note_seconds": [run["note_seconds"] for run in runs[system][1:]],
                    "loop_seconds": [run["loop_seconds"] for run in runs[system][1:] if "loop_seconds" in run],
                    "peak_megabytes": runs[system][-1]["peak_megabytes"],
                }
            )
            middle = sorted(second for run in lines[-1]["note_seconds"] for second in run)
            console.print(f"  {system}: {1000 * middle[len(middle) // 2]:.2f} ms a note", highlight=False)
        return lines + failed
    finally:
        for worker in workers.values():
            worker.close()


def _job(config: BenchmarkConfig, cell: Cell, system: str) -> Job:
    """The command of the worker for `system`, and its job."""
    job = dict(
        batch=cell.batch,
        context_events=cell.context_events,
        events=cell.events,
        dtype=config.dtype,
        seed=config.seed,
        threads=len(os.sched_getaffinity(0)),
        prefill=cell.table != "growth_context",
    )
    if system in PEERS:
        if not PEERS_PYTHON.exists():
            raise WorkerFailed("its environment is not there; make it with bash launch/peers.sh")
        peer = dict(PEERS[system])
        script = ROOT / "third_party" / "peers" / peer.pop("script")
        sizes = list(NoteEvents().vocab_sizes)
        size = {**cell.model, "kv_heads": cell.model["heads"], "vocab_sizes": sizes}
        return [str(PEERS_PYTHON), str(script)], {**job, **size, **peer}
    command = [sys.executable, "-m", "sage_jax.benchmark.decode"]
    if system == "checkpoint":
        return command, {**job, "workdir": config.workdir}
    return command, {**job, "model": {**cell.model, **fields_of(system)}}


def _facts(config: BenchmarkConfig, cell: Cell) -> dict[str, Any]:
    facts = {**dataclasses.asdict(cell), "dtype": config.dtype, "rounds": config.rounds}
    return json.loads(json.dumps(facts))  # as it reads from a file
