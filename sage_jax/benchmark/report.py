"""The report of a benchmark: a part of docs/benchmarks.md with its origin, tables and plots."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sage_jax.benchmark import decoding_report, live_report, training_report
from sage_jax.benchmark.config import BenchmarkConfig, CommunicationCell, DecodingCell, LiveCell, TrainingCell
from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.ratios import CONTROL, MIN_TURNS
from sage_jax.markdown import write_part

TITLE = "# Benchmarks\n"


def write_report(
    config: BenchmarkConfig, measurements: Sequence[Measurement], report: pathlib.Path, plot: pathlib.Path, command: str
) -> None:
    """Writes the part of `report` with config.title as its heading, and the scaling curves to `plot`.

    Parts with other titles stay as they are.
    """
    measurements = _pool_probes(measurements)
    of_cell = lambda cell: [each for each in measurements if each.cell == config.cell_settings(cell)]
    cells = list(config.cells())
    decoding = [(cell, of_cell(cell)) for cell in cells if isinstance(cell, DecodingCell)]
    training = [(cell, of_cell(cell)) for cell in cells if isinstance(cell, TrainingCell)]
    communication = [(cell, of_cell(cell)) for cell in cells if isinstance(cell, CommunicationCell)]
    live = [(cell, of_cell(cell)) for cell in cells if isinstance(cell, LiveCell)]
    parts = [_preface(config, measurements, command)]
    if decoding:
        tables = [(cell, found) for cell, found in decoding if not cell.is_curve]
        parts += [decoding_report.about(config), *(decoding_report.table(*each, config) for each in tables)]
        if fits := decoding_report.scaling_curves([each for _, found in decoding for each in found], plot):
            link = os.path.relpath(plot, report.parent)
            picture = f"![Milliseconds per event against context, batch, embed_dim and num_layers]({link})"
            parts.append(f"### Scaling curves\n\n{picture}\n\n{fits}")
    if training:
        parts += [training_report.about(), *(training_report.table(*each, config) for each in training)]
    if communication:
        parts.append(training_report.communication(communication))
    if live:
        parts.append(live_report.table(live))
    parts.append(_runs(measurements))
    part = f"## {config.title}\n\n" + "\n\n".join(parts)
    write_part(report, TITLE, part)


def _pool_probes(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements, each with all probes of the device. The few probes of one cell could make shares above 1."""
    probes = []  # the measurements of a cell share one
    for measurement in measurements:
        if measurement.device and measurement.device not in probes:
            probes.append(measurement.device)
    rates = {name: [rate for probe in probes for rate in probe[name]] for probe in probes for name in probe}
    return [dataclasses.replace(each, device=rates) if each.device else each for each in measurements]


def _preface(config: BenchmarkConfig, measurements: Sequence[Measurement], command: str) -> str:
    """The origin of the numbers and the method."""
    versions = [each.metadata["versions"] for each in measurements if each.ok]
    ours = next((each for each in versions if "device" in each), {})  # a peer lists only its own packages
    commits = ", ".join(dict.fromkeys(each.commit for each in measurements))
    lines = [
        f"Written by `{command}`.",
        f"Commit {commits}. {', '.join(f'{name} {value}' for name, value in ours.items())}."
        + ("" if config.live else f" {config.dtype}; weights are random unless a row says otherwise."),
    ]
    if rates := next((each.device for each in measurements if each.device), None):
        memory, arithmetic = (np.percentile(np.array(values) / 1e9, [50, 25, 75]) for values in rates.values())
        lines.append(f"""\
Memory bandwidth is {memory[0]:.1f} GB/s (quartiles {memory[1]:.1f} to {memory[2]:.1f}), the rate of matrix products
{arithmetic[0]:,.0f} GFLOP/s ({arithmetic[1]:,.0f} to {arithmetic[2]:,.0f}): medians over probes before every round. The systems
of a table run in processes of their own on the same cores and take turns, in a new random order in each of {config.rounds}
rounds. The first round does not count.

A ratio is the median of the ratios within a turn, with its 95% interval by a paired bootstrap over turns.
`{config.reference}{CONTROL}` is the reference a second time, in a worker of its own: the distance of its ratio from 1 is the
error of the method. A table without that pair, or with fewer than {MIN_TURNS} turns, has no ratios. Intervals are not corrected
for multiple comparisons.""")
    return "\n".join(lines)


def _runs(measurements: Iterable[Measurement]) -> str:
    """A list of what a run of each system does, and on which device."""
    systems: dict[str, dict[str, None]] = {}
    for measurement in measurements:
        if measurement.ok:
            metadata = measurement.metadata
            where = metadata["versions"].get("device") or _peer_device(metadata)
            systems.setdefault(f"on {where}: {metadata['measures']}", {})[measurement.system] = None
    rows = [f"- {', '.join(f'`{name}`' for name in names)}, {measures}" for measures, names in systems.items()]
    return "### What a run does\n\n" + "\n".join(rows)


def _peer_device(metadata: dict[str, Any]) -> str:
    releases = ", ".join(f"{name} {version}" for name, version in metadata["versions"].items())
    return f"{metadata['device']} with {releases}"
