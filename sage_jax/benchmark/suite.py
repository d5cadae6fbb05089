"""The benchmark: measures every cell of a config and appends one line of JSON per measurement."""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from sage_jax import environment
from sage_jax.benchmark.config import BenchmarkConfig, Cell, CommunicationCell, LiveCell, TrainingCell
from sage_jax.benchmark.interleaved import MAX_ERROR, Worker, WorkerFailed, run_interleaved
from sage_jax.benchmark.measurement import Measurement
from sage_jax.corpus.preprocess import preprocess
from sage_jax.tokenizers.note_events import NoteEvents

MEASUREMENTS = "measurements.jsonl"
SHARDS = "shards"


def measure(config: BenchmarkConfig, output: pathlib.Path, console: Console) -> list[Measurement]:
    """Measures the cells that `output`'s measurements lack, one after another; returns all measurements of this config."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / MEASUREMENTS
    lines = path.read_text().splitlines() if path.exists() else []
    known = [Measurement.from_json(json.loads(line)) for line in lines]
    commit = environment.commit()
    probe = Worker([sys.executable, "-m", "sage_jax.benchmark.roofline"], {"dtype": config.dtype})
    try:
        measurements = []
        for cell in config.cells():
            settings = config.cell_settings(cell)
            of_cell = [measurement for measurement in known if measurement.cell == settings]
            if not of_cell:
                console.print(f"{cell.table}: {cell}", highlight=False)
                if isinstance(cell, TrainingCell) and not config.shards:
                    config = _with_shards(config, output / SHARDS)
                of_cell = measure_cell(config, cell, probe, commit, console)
                with path.open("a") as file:
                    file.write("".join(json.dumps(measurement.to_json()) + "\n" for measurement in of_cell))
            else:
                console.print(f"{cell.table}: {cell}: {_known(of_cell, commit, path)}", highlight=False, soft_wrap=True)
            measurements += of_cell
        return measurements
    finally:
        probe.close()


def _known(of_cell: list[Measurement], commit: str, path: pathlib.Path) -> str:
    """What a user must know of measurements that are taken from a file."""
    others = sorted({measurement.commit for measurement in of_cell} - {commit})
    if not others:
        return f"measured before, see {path}"
    return f"measured before at commit {', '.join(others)}, and this is {commit}; give another --output to measure it again"


def measure_cell(
    config: BenchmarkConfig, cell: Cell, probe: Worker, commit: str, console: Console
) -> list[Measurement]:
    """Measures every system of a cell."""
    if isinstance(cell, CommunicationCell):
        return _measure_communication(config, cell, commit, console)
    if isinstance(cell, LiveCell):
        return _measure_live(config, cell, commit, console)
    job_of, settings = functools.partial(cell.job, config), config.cell_settings(cell)
    return run_interleaved(cell.systems, job_of, config.rounds, probe, settings, commit, console, config.time_limit)


def _measure_communication(
    config: BenchmarkConfig, cell: CommunicationCell, commit: str, console: Console
) -> list[Measurement]:
    """The communication of a cell's programs, compiled for fake devices. Nothing is timed, so there are no turns."""
    # The programs never run: unoptimized machine code saves compile time and does not change the collectives.
    flags = "--xla_backend_optimization_level=0"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags} --xla_force_host_platform_device_count={cell.devices}"
    variables = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    fields_of = lambda found: {"programs": found["programs"]}
    return _measure_once(config, cell, commit, console, fields_of, config.time_limit, variables)


def _measure_live(config: BenchmarkConfig, cell: LiveCell, commit: str, console: Console) -> list[Measurement]:
    """Live play in real time: the notes of one run are the samples."""
    fields_of = lambda found: {"live": found["live"], "peak_megabytes": [found["peak_megabytes"]]}
    return _measure_once(config, cell, commit, console, fields_of, config.time_limit + cell.events)


def _measure_once(
    config: BenchmarkConfig,
    cell: Cell,
    commit: str,
    console: Console,
    fields_of: Callable[[dict[str, Any]], dict[str, Any]],
    limit: float,
    variables: Mapping[str, str] | None = None,
) -> list[Measurement]:
    """One run of each system, one after another. fields_of: the fields of a Measurement from what a worker has found."""
    settings, measurements = config.cell_settings(cell), []
    for system in cell.systems:
        try:
            worker = Worker(*cell.job(config, system), variables, limit)
            try:
                found = fields_of(worker.run())
            finally:
                worker.close()
        except WorkerFailed as error:
            console.print(f"  {system}: not measured: {error}", highlight=False, markup=False)
            measurements.append(Measurement(system, settings, commit, error=str(error)[:MAX_ERROR]))
        else:
            measurements.append(Measurement(system, settings, commit, metadata=worker.metadata, **found))
    return measurements


def _with_shards(config: BenchmarkConfig, folder: pathlib.Path) -> BenchmarkConfig:
    """The config with the token shards of its corpus in `folder`; makes them if they are missing."""
    preprocess(config.corpus, folder, NoteEvents(), show_progress=False)
    return dataclasses.replace(config, shards=str(folder.absolute()))
