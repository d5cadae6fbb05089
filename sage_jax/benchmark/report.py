"""From measurements to a part of BENCHMARKS.md: where they are from, tables in Markdown, and plots."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sage_jax.benchmark import decoding_report, training_report
from sage_jax.benchmark.config import BenchmarkConfig, DecodingCell, ScalingCell, TrainingCell
from sage_jax.benchmark.ratios import CONTROL, MIN_TURNS
from sage_jax.markdown import write_part

TITLE = "# Benchmarks\n"


def write_report(
    config: BenchmarkConfig, lines: list[dict[str, Any]], report: pathlib.Path, plot: pathlib.Path, command: str
) -> None:
    """Writes the tables into `report`, as the part that config.title names, and how cost grows to the picture `plot`.

    Parts of other titles, which other configs have written, stay as they are.
    """
    lines = _at_the_rates_of_the_run(lines)
    found = [(cell, [line for line in lines if line["cell"] == config.facts(cell)]) for cell in config.cells()]
    of_kind = lambda kind: [(cell, rows) for cell, rows in found if isinstance(cell, kind)]
    decoding, training, scaling = of_kind(DecodingCell), of_kind(TrainingCell), of_kind(ScalingCell)
    parts = [_preface(config, lines, command)]
    if decoding:
        tables = [(cell, rows) for cell, rows in decoding if not cell.table.startswith("growth")]
        parts += [decoding_report.about(config), *(decoding_report.table(*cell, config) for cell in tables)]
        if plotted := decoding_report.growth([line for _, rows in decoding for line in rows], plot):
            link = os.path.relpath(plot, report.parent)
            picture = f"![Milliseconds per note against context, batch, width and layers]({link})"
            parts.append(f"### Growth\n\n{picture}\n\n{plotted}")
    if training:
        parts += [training_report.about(), *(training_report.table(*cell, config) for cell in training)]
    if scaling:
        parts.append(training_report.scaling(scaling))
    parts.append(_measures(lines))
    part = f"## {config.title}\n\n" + "\n\n".join(parts)
    write_part(report, TITLE, part)


def _at_the_rates_of_the_run(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With all probes of the device at each line: those of a single cell are few, and a slow one would make shares above 1."""
    probes = []  # a cell's lines share one
    for line in lines:
        if "device" in line and line["device"] not in probes:
            probes.append(line["device"])
    rates = {name: [rate for probe in probes for rate in probe[name]] for probe in probes for name in probe}
    return [{**line, "device": rates} if "device" in line else line for line in lines]


def _preface(config: BenchmarkConfig, lines: list[dict[str, Any]], command: str) -> str:
    """Where the figures are from."""
    versions = [line["about"]["versions"] for line in lines if "about" in line]
    ours = next((each for each in versions if "device" in each), {})  # a peer's are those of its own packages
    commits = ", ".join(dict.fromkeys(line["commit"] for line in lines))
    said = [
        f"Written by `{command}`; not typed.",
        f"Commit {commits}. {', '.join(f'{name} {value}' for name, value in ours.items())}. {config.dtype}; "
        "weights are random unless a row says otherwise.",
    ]
    if rates := next((line["device"] for line in lines if "device" in line), None):
        memory, arithmetic = (np.percentile(np.array(values) / 1e9, [50, 25, 75]) for values in rates.values())
        said.append(f"""\
Memory was read at {memory[0]:.1f} GB/s (quartiles {memory[1]:.1f} to {memory[2]:.1f}) and matrices multiplied
at {arithmetic[0]:,.0f} GFLOP/s ({arithmetic[1]:,.0f} to {arithmetic[2]:,.0f}), measured again before every round, medians over
the run. Systems of one table run in processes of their own on the same cores and take turns in an order that is drawn anew
for each of {config.rounds} rounds, of which the first is not counted.

A ratio is the median over turns of the ratios within a turn; in brackets is its 95% interval by a paired bootstrap over turns.
`{config.reference}{CONTROL}` is the reference a second time, as a worker of its own: what its ratio differs from 1 by is the
error of the method. A table without that pair, or of fewer than {MIN_TURNS} turns, has no ratios. No interval is corrected for
the number of rows.""")
    return "\n".join(said)


def _measures(lines: Iterable[dict[str, Any]]) -> str:
    """What each system's run does, and on which device."""
    said = {}
    for line in lines:
        if "about" in line:
            about = line["about"]
            where = about["versions"].get("device") or _peers(about)
            names = said.setdefault(f"on {where}: {about['measures']}", [])
            if line["system"] not in names:
                names.append(line["system"])
    rows = [f"- {', '.join(f'`{name}`' for name in names)}, {measures}" for measures, names in said.items()]
    return "### What a run does\n\n" + "\n".join(rows)


def _peers(about: dict[str, Any]) -> str:
    """A peer's device, and the releases of its packages."""
    releases = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['device']} with {releases}"
