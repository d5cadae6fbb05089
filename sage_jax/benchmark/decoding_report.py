"""Tables of decoding in Markdown, and plots of how its cost grows."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from sage_jax.benchmark.config import GROWTH, BenchmarkConfig, DecodingCell
from sage_jax.benchmark.figures import LEAST_TIMES, WELL_OVER, summarise
from sage_jax.benchmark.sections import compared, section, show
from sage_jax.files import replacing

COLUMNS = (
    "system", "steady ms/note p50", "p95", "p99", "max", "notes/s", "tokens/s", "notes of the events", "x real time",
    "prefill, events/s", "first note, ms", "cache, MB", "peak, MB", "compiling, s", "memory roofline", "arithmetic roofline",
    "note by note, times {reference} [bytes predict]", "{featured}, times this row",
)  # fmt: skip


def about(config: BenchmarkConfig) -> str:
    """What the columns are."""
    return f"""\
A note is one event: five tokens in our models and in the flat peers. With random weights a few events are rests or changes of
tempo and meter; the share of notes is beside the rates. A run counts the events that it drew, and fails where some are missing.

The percentiles are over single events, drawn one by one with the host waiting for each, as live. They are of the steady state:
neither the growth of the cache nor reading the last bars again, when the context is full, is among them. A p95 needs
{LEAST_TIMES["p95"]} timed events and a p99 {LEAST_TIMES["p99"]:,}. Notes and tokens per second are of the compiled loop, where
a system has one. `x real time` is seconds of music in each row for each second, at the tempo of the prompts' pieces.

The memory roofline is the bytes that a step must move (weights, cache read, cache write) over the measured bandwidth. It is
left out where those bytes are less than {WELL_OVER} times the processor's last-level cache. The arithmetic roofline is the
step's operations over the measured rate. Both are the shares that are reached at the median.

The last columns are ratios of the time of single events: how many times as fast as `{config.reference}` the row is, in square
brackets what the bytes alone predict, and how many times as fast as the row `{config.featured}` is."""


def table(cell: DecodingCell, lines: Sequence[Mapping[str, Any]], config: BenchmarkConfig) -> str:
    """The section of a cell, from the lines of its measurements."""
    measured = {line["system"]: line for line in lines if "about" in line}
    paired = compared(lines, config.reference)
    reference, featured = (measured.get(name) if paired else None for name in (config.reference, config.featured))
    header = [column.format(reference=config.reference, featured=config.featured) for column in COLUMNS]
    rows = [_row(line, summarise(line, reference, featured)) for line in measured.values()]
    return section(cell, header, rows, lines, config.reference)


def _row(line: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    about = line["about"]
    cache = about.get("cache_bytes")
    predicted = f" [{figures['predicted']:.2f}]" if {"speedup", "predicted"} <= figures.keys() else ""
    return [
        line["system"] + (f" ({about['model']})" if line["system"] == "checkpoint" else ""),
        *(show(figures, name, "{:.2f}") for name in ("p50", "p95", "p99", "max")),
        show(figures, "notes_per_second", "{:,.1f}"),
        show(figures, "tokens_per_second", "{:,.0f}"),
        show(figures, "notes_drawn", "{:.0%}"),
        show(figures, "times_real_time", "{:.1f}"),
        show(figures, "prefill_events_per_second", "{:,.0f}"),
        show(figures, "first_note", "{:,.0f}"),
        "-" if cache is None else f"{cache / 1e6:,.1f}",
        f"{max(line['peak_megabytes']):,.0f}",
        f"{about.get('compile_seconds', 0):.1f}",
        show(figures, "memory_share", "{:.0%}"),
        show(figures, "arithmetic_share", "{:.0%}"),
        show(figures, "speedup", "{}") + predicted,
        show(figures, "of_featured", "{}"),
    ]


def growth(lines: Sequence[Mapping[str, Any]], path: pathlib.Path) -> str:
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
        axes.set(xscale="log", yscale="log", xlabel={"context": "context, events"}.get(field, field), ylabel="ms per event")
        ticks = sorted({value for pairs in points.values() for value, _ in pairs})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return "Least-squares lines through the points, milliseconds per event step (all rows of the batch):\n\n" + "\n".join(said)
