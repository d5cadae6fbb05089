"""The benchmark: cells of systems that take turns on the same cores, and a line of JSON for each measurement."""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from typing import Any

from rich.console import Console

from sage_jax.benchmark.config import BenchmarkConfig, Cell, ScalingCell, TrainingCell
from sage_jax.benchmark.turns import Worker, WorkerFailed, take_turns
from sage_jax.environment import commit
from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import preprocess

MEASUREMENTS = "measurements.jsonl"
SHARDS = "shards"


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
            facts = config.facts(cell)
            there = [line for line in lines if line["cell"] == facts]
            if not there:
                console.print(f"{cell.table}: {cell}", highlight=False)
                if isinstance(cell, TrainingCell) and not config.shards:
                    config = _with_shards(config, output / SHARDS)
                there = measure_cell(config, cell, probe, {"commit": measured, "cell": facts}, console)
                with path.open("a") as file:
                    file.write("".join(json.dumps(line) + "\n" for line in there))
            done += there
        return done
    finally:
        probe.close()


def measure_cell(
    config: BenchmarkConfig, cell: Cell, probe: Worker, setting: dict[str, Any], console: Console
) -> list[dict[str, Any]]:
    """One line for each system of a cell, and `setting` in each."""
    if isinstance(cell, ScalingCell):
        return _count(config, cell, setting, console)
    job_of = functools.partial(cell.job, config)
    return take_turns(cell.systems, job_of, config.rounds, probe, setting, console, config.time_limit)


def _count(config: BenchmarkConfig, cell: ScalingCell, setting: dict[str, Any], console: Console) -> list[dict[str, Any]]:
    """What a cell's programs send: nothing is timed, so that there are no turns, and the devices need not be there."""
    # Machine code that nobody runs need not be fast: this leaves out what comes after the program that is counted.
    quick = "--xla_backend_optimization_level=0"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {quick} --xla_force_host_platform_device_count={cell.devices}"
    lines = []
    for system in cell.systems:
        try:
            variables = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
            worker = Worker(*cell.job(config, system), variables, config.time_limit)
            try:
                counted = worker.run()
            finally:
                worker.close()
        except WorkerFailed as error:
            counted = {"failed": str(error)[:300]}
            console.print(f"  {system}: not counted: {error}", highlight=False, markup=False)
        else:
            counted["about"] = worker.about
        lines.append({"system": system, **setting, **counted})
    return lines


def _with_shards(config: BenchmarkConfig, folder: pathlib.Path) -> BenchmarkConfig:
    """The config with shards of its corpus in `folder`, which are made where they are not there."""
    preprocess(config.corpus, folder, NoteEvents(), show_progress=False)
    return dataclasses.replace(config, shards=str(folder.absolute()))
