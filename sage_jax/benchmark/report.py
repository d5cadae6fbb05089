"""From measurements to tables in Markdown, and to plots of how cost grows."""

import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from sage_jax.benchmark.suite import GROWTH, BenchmarkConfig
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table
from sage_jax.music.events import NUM_ATTRIBUTES

COLUMNS = (
    "system", "ms/note p50", "p95", "p99", "max", "notes/s", "tokens/s", "x real time", "prefill, events/s", "first note, ms",
    "cache, MB", "peak, MB", "compiling, s", "memory roofline", "arithmetic roofline",
    "times {reference} [bytes say]", "{featured} is times as fast",
)  # fmt: skip


def summarise(
    line: Mapping[str, Any], reference: Mapping[str, Any] | None = None, featured: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of one measurement: milliseconds, shares of the roofline at the medians of time and of the device's rates.

    speedup: median and quartiles, over the rounds, of the reference's median note over this system's in the same round;
    predicted: the same ratio of the bytes that both must move. behind: this system's over the featured one's.
    """
    about, cell = line["about"], line["cell"]
    notes = [1000 * second for run in line["note_seconds"] for second in run]
    p50, p95, p99 = (float(np.percentile(notes, q)) for q in (50, 95, 99))
    loop = statistics.median(line["loop_seconds"]) / cell["events"] if line["loop_seconds"] else p50 / 1000
    rate = cell["batch"] / loop
    figures = dict(p50=p50, p95=p95, p99=p99, max=max(notes), notes=len(notes), notes_per_second=rate)
    figures["tokens_per_second"] = rate * about["tokens_per_note"]
    if "seconds_per_note" in about:
        figures["times_real_time"] = rate / cell["batch"] * about["seconds_per_note"]
    if line["prefill_seconds"]:
        prefill = statistics.median(line["prefill_seconds"])
        figures["prefill_events_per_second"] = cell["batch"] * (cell["context_events"] - cell["events"]) / prefill
        figures["first_note"] = 1000 * prefill + statistics.median(1000 * run[0] for run in line["note_seconds"])
    device = {name: statistics.median(values) for name, values in line["device"].items()}
    if "step_bytes" in about:
        figures["memory_share"] = about["step_bytes"] / device["bytes_per_second"] / p50 * 1000
        figures["arithmetic_share"] = about["step_operations"] / device["operations_per_second"] / p50 * 1000
    if reference is not None and reference is not line:
        figures["speedup"] = _ratio(reference, line)
        if "step_bytes" in about and "step_bytes" in reference["about"]:
            figures["predicted"] = reference["about"]["step_bytes"] / about["step_bytes"]
    if featured is not None and featured is not line:
        figures["behind"] = _ratio(line, featured)
    return figures


def _ratio(slower: Mapping[str, Any], faster: Mapping[str, Any]) -> list[float]:
    """How many times as fast: the median over the rounds, and the quartiles."""
    rounds = zip(slower["note_seconds"], faster["note_seconds"], strict=True)
    ratios = [statistics.median(long) / statistics.median(short) for long, short in rounds]
    return [float(np.percentile(ratios, q)) for q in (50, 25, 75)]


def write_report(
    config: BenchmarkConfig, lines: list[dict[str, Any]], report: pathlib.Path, plot: pathlib.Path, command: str
) -> None:
    """Writes the tables to `report` and how cost grows to the picture `plot`."""
    lines = _at_the_rates_of_the_run(lines)
    plotted = _plot_growth(lines, plot)
    parts = [_preface(config, lines, command)]
    for cell, rows in _by_cell(lines):
        if not cell["table"].startswith("growth"):
            parts.append(_table(cell, rows, config))
    if plotted:
        link = os.path.relpath(plot, report.parent)
        parts.append(f"## Growth\n\n![Milliseconds per note against context, batch, width and layers]({link})\n\n{plotted}")
    parts.append(_measures(lines))
    with replacing(report) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")


def _at_the_rates_of_the_run(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With all probes of the device at each line: those of a single cell are few, and a slow one would make shares above 1."""
    probes = [next(line["device"] for line in rows if "device" in line) for _, rows in _by_cell(lines)]  # a cell's rows share one
    rates = {name: [rate for probe in probes for rate in probe[name]] for name in probes[0]}
    return [{**line, "device": rates} if "device" in line else line for line in lines]


def _by_cell(lines: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    cells = []
    for line in lines:
        if not cells or cells[-1][0] != line["cell"]:
            cells.append((line["cell"], []))
        cells[-1][1].append(line)
    return cells


def _preface(config: BenchmarkConfig, lines: list[dict[str, Any]], command: str) -> str:
    first = next(line for line in lines if "versions" in line.get("about", {}) and "device" in line["about"]["versions"])
    versions = ", ".join(f"{name} {value}" for name, value in first["about"]["versions"].items())
    commits = ", ".join(dict.fromkeys(line["commit"] for line in lines))
    rates = next(line["device"] for line in lines if "device" in line)
    memory, arithmetic = (np.percentile(np.array(values) / 1e9, [50, 25, 75]) for values in rates.values())
    return f"""# Benchmarks

Written by `{command}`; not typed.
Commit {commits}. {versions}. {config.dtype}; weights are random unless a row says otherwise.
Memory was read at {memory[0]:.1f} GB/s (quartiles {memory[1]:.1f} to {memory[2]:.1f}) and matrices multiplied at
{arithmetic[0]:,.0f} GFLOP/s ({arithmetic[1]:,.0f} to {arithmetic[2]:,.0f}), measured again before every round, medians over the run.

A note is one event: five tokens in our models and in the flat peers. Systems of one table run in processes of their own on
the same cores and take turns, {config.rounds} rounds, of which the first is not counted. The percentiles are over single notes,
drawn one by one with the host waiting for each, as live; notes and tokens per second are of the compiled loop, where a system
has one. `x real time` is seconds of music in each row for each second, at the tempo of the pieces whose beginnings are the
prompts. The memory roofline is the bytes that a step must move (weights, cache read, cache write) over the measured
bandwidth, the arithmetic roofline its operations over the measured rate: shares of them that are reached, at the median. The
last columns: how many times as fast as `{config.reference}` the row is, in square brackets what the bytes alone predict, and how
many times as fast as the row `{config.featured}` is; medians over the rounds with quartiles."""


def _table(cell: Mapping[str, Any], lines: Sequence[dict[str, Any]], config: BenchmarkConfig) -> str:
    model = ", ".join(f"{field} {value}" for field, value in cell["model"].items())
    tokens = cell["context_events"] * NUM_ATTRIBUTES
    size = f"batch {cell['batch']}, {tokens:,} tokens ({cell['context_events']:,} events) of context"
    title = f"## {cell['table']}: {size}\n\n{model}."
    measured = {line["system"]: line for line in lines if "about" in line}
    reference, featured = measured.get(config.reference), measured.get(config.featured)
    header = [column.format(reference=config.reference, featured=config.featured) for column in COLUMNS]
    rows, failed = [], []
    for line in lines:
        if "failed" in line:
            failed.append(f"Not measured: `{line['system']}`: {line['failed']}")
            continue
        rows.append(_row(line, summarise(line, reference, featured)))
    return "\n\n".join([title, markdown_table(header, rows), *failed])


def _row(line: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    about = line["about"]
    show = lambda name, form: form.format(figures[name]) if name in figures else "-"
    cache = about.get("cache_bytes")
    spread = lambda name: "{:.2f} ({:.2f} to {:.2f})".format(*figures[name]) if name in figures else "-"
    predicted = f" [{figures['predicted']:.2f}]" if "predicted" in figures else ""
    return [
        line["system"] + (f" ({about['model']})" if line["system"] == "checkpoint" else ""),
        *(show(name, "{:.2f}") for name in ("p50", "p95", "p99", "max")),
        show("notes_per_second", "{:,.1f}"),
        show("tokens_per_second", "{:,.0f}"),
        show("times_real_time", "{:.1f}"),
        show("prefill_events_per_second", "{:,.0f}"),
        show("first_note", "{:,.0f}"),
        "-" if cache is None else f"{cache / 1e6:,.1f}",
        f"{line['peak_megabytes']:,.0f}",
        f"{about.get('compile_seconds', 0):.1f}",
        show("memory_share", "{:.0%}"),
        show("arithmetic_share", "{:.0%}"),
        spread("speedup") + predicted,
        spread("behind"),
    ]


def _measures(lines: Iterable[dict[str, Any]]) -> str:
    said = {}
    for line in lines:
        if "about" in line:
            names = said.setdefault(line["about"]["measures"], [])
            if line["system"] not in names:
                names.append(line["system"])
    rows = [f"- {', '.join(f'`{name}`' for name in names)}: {measures}" for measures, names in said.items()]
    return "## What a run does\n\n" + "\n".join(rows)


def _plot_growth(lines: list[dict[str, Any]], path: pathlib.Path) -> str:
    """Draws a panel for each field that grows; returns the fitted lines in words, or nothing where nothing grew."""
    fields = [field for field in GROWTH if any(line["cell"]["table"] == f"growth_{field}" for line in lines)]
    if not fields:
        return ""
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(fields), 3.6), layout="constrained")
    said = []
    for axes, field in zip(np.atleast_1d(figure.subplots(1, len(fields))), fields, strict=True):
        points = {}
        for line in lines:
            if line["cell"]["table"] == f"growth_{field}" and "about" in line:
                cell = {**line["cell"], **line["cell"]["model"]}
                points.setdefault(line["system"], []).append((cell[GROWTH[field]], summarise(line)["p50"]))
        for system, pairs in points.items():
            x, y = np.array(sorted(pairs)).T
            axes.plot(x, y, marker="o", label=system)
            if len(x) > 1:
                slope, start = np.polyfit(x, y, 1)
                power = np.polyfit(np.log(x), np.log(y), 1)[0]
                fit = f"{start:.2f} ms + {slope:.4g} ms for each one more; as a power, {power:.2f}"
                said.append(f"- {field}, `{system}`: {fit}")
        axes.set(xscale="log", yscale="log", xlabel={"context": "context, events"}.get(field, field), ylabel="ms per note")
        ticks = sorted({value for pairs in points.values() for value, _ in pairs})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return "Least-squares lines through the points, milliseconds per note step (all rows of the batch):\n\n" + "\n".join(said)
