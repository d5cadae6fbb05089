"""Tables of decoding in Markdown, and plots of how its cost grows."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from sage_jax.benchmark.config import GROWTH, BenchmarkConfig, DecodingCell
from sage_jax.benchmark.figures import summarise
from sage_jax.benchmark.sections import section, show, spread
from sage_jax.files import replacing

COLUMNS = (
    "system", "ms/note p50", "p95", "p99", "max", "notes/s", "tokens/s", "x real time", "prefill, events/s", "first note, ms",
    "cache, MB", "peak, MB", "compiling, s", "memory roofline", "arithmetic roofline",
    "times {reference} [bytes say]", "{featured} is times as fast",
)  # fmt: skip


def about(config: BenchmarkConfig) -> str:
    """What the columns are."""
    return f"""\
A note is one event: five tokens in our models and in the flat peers. The percentiles are over single notes,
drawn one by one with the host waiting for each, as live; notes and tokens per second are of the compiled loop, where a system
has one. `x real time` is seconds of music in each row for each second, at the tempo of the pieces whose beginnings are the
prompts. The memory roofline is the bytes that a step must move (weights, cache read, cache write) over the measured
bandwidth, the arithmetic roofline its operations over the measured rate: shares of them that are reached, at the median.
The last columns: how many times as fast as `{config.reference}` the row is, in square brackets what the bytes alone predict,
and how many times as fast as the row `{config.featured}` is; medians over the rounds with quartiles."""


def table(cell: DecodingCell, lines: Sequence[Mapping[str, Any]], config: BenchmarkConfig) -> str:
    """The section of a cell, from the lines of its measurements."""
    measured = {line["system"]: line for line in lines if "about" in line}
    reference, featured = measured.get(config.reference), measured.get(config.featured)
    header = [column.format(reference=config.reference, featured=config.featured) for column in COLUMNS]
    rows = [_row(line, summarise(line, reference, featured)) for line in measured.values()]
    return section(cell, header, rows, lines)


def _row(line: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    about = line["about"]
    cache = about.get("cache_bytes")
    predicted = f" [{figures['predicted']:.2f}]" if "predicted" in figures else ""
    return [
        line["system"] + (f" ({about['model']})" if line["system"] == "checkpoint" else ""),
        *(show(figures, name, "{:.2f}") for name in ("p50", "p95", "p99", "max")),
        show(figures, "notes_per_second", "{:,.1f}"),
        show(figures, "tokens_per_second", "{:,.0f}"),
        show(figures, "times_real_time", "{:.1f}"),
        show(figures, "prefill_events_per_second", "{:,.0f}"),
        show(figures, "first_note", "{:,.0f}"),
        "-" if cache is None else f"{cache / 1e6:,.1f}",
        f"{max(line['peak_megabytes']):,.0f}",
        f"{about.get('compile_seconds', 0):.1f}",
        show(figures, "memory_share", "{:.0%}"),
        show(figures, "arithmetic_share", "{:.0%}"),
        spread(figures, "speedup") + predicted,
        spread(figures, "behind"),
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
