"""Markdown tables of decoding speed, and plots of its scaling curves."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from sage_jax.benchmark.config import CURVE, CURVES, BenchmarkConfig, DecodingCell
from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.metrics import MIN_CACHE_MULTIPLE, MIN_SAMPLES, decoding_metrics
from sage_jax.benchmark.report_section import has_control, section, show
from sage_jax.files import replacing

COLUMNS = (
    "system", "ms/note p50", "p95", "p99", "max", "notes/s", "tokens/s", "notes/event", "RTF", "prefill, events/s", "TTFN, ms",
    "cache, MB", "peak memory, MB", "compile time, s", "memory roofline", "arithmetic roofline",
    "speedup over {reference} (95% CI) [predicted]", "{highlighted} over this row (95% CI)",
)  # fmt: skip


def about(config: BenchmarkConfig) -> str:
    """Explains the columns."""
    return f"""\
A note is one event: five tokens in our models and in the flat peers. With random weights a few events are rests or changes of
tempo and meter; notes/event is the share of notes. A run counts the events that it drew, and fails if any is missing.

Percentiles are over single events, drawn one by one with the host waiting for each, as in live use. They are of the steady
state: they include neither the growth of the cache nor the new prefill when the context is full. A p95 needs
{MIN_SAMPLES["p95"]} timed events, a p99 {MIN_SAMPLES["p99"]:,}. Notes/s and tokens/s are of the compiled loop if a system has
one. RTF, the real-time factor, is seconds of music per second in each row, at the tempo of the prompts' pieces. TTFN is the
time to the first note, prefill included.

The memory roofline is the time that the device needs to move the bytes of a step (weights, cache reads, cache writes), over the
measured time. It is left out if those bytes are less than {MIN_CACHE_MULTIPLE} times the processor's last-level cache. The
arithmetic roofline is the same for the step's operations. Both are at the median.

The last columns are ratios of the time of single events. The first is the speedup of the row over `{config.reference}`; in
square brackets is the ratio that the bytes alone predict. The second is the speedup of `{config.highlighted}` over the row."""


def table(cell: DecodingCell, measurements: Sequence[Measurement], config: BenchmarkConfig) -> str:
    """The section of a cell."""
    measured = {each.system: each for each in measurements if each.ok}
    paired = has_control(measurements, config.reference)
    reference, highlighted = (measured.get(name) if paired else None for name in (config.reference, config.highlighted))
    header = [column.format(reference=config.reference, highlighted=config.highlighted) for column in COLUMNS]
    rows = [_row(each, decoding_metrics(each, reference, highlighted)) for each in measured.values()]
    return section(cell, header, rows, measurements, config.reference)


def _row(measurement: Measurement, metrics: Mapping[str, Any]) -> list[str]:
    metadata, system = measurement.metadata, measurement.system
    cache = metadata.get("cache_bytes")
    predicted = f" [{metrics['predicted_speedup']:.2f}]" if {"speedup", "predicted_speedup"} <= metrics.keys() else ""
    return [
        system + (f" ({metadata['model']})" if system == "checkpoint" else ""),
        *(show(metrics, name, "{:.2f}") for name in ("p50", "p95", "p99", "max")),
        show(metrics, "notes_per_second", "{:,.1f}"),
        show(metrics, "tokens_per_second", "{:,.0f}"),
        show(metrics, "note_share", "{:.0%}"),
        show(metrics, "rtf", "{:.1f}"),
        show(metrics, "prefill_events_per_second", "{:,.0f}"),
        show(metrics, "ttfn", "{:,.0f}"),
        "-" if cache is None else f"{cache / 1e6:,.1f}",
        f"{max(measurement.peak_megabytes):,.0f}",
        f"{metadata.get('compile_seconds', 0):.1f}",
        show(metrics, "memory_share", "{:.0%}"),
        show(metrics, "arithmetic_share", "{:.0%}"),
        show(metrics, "speedup", "{}") + predicted,
        show(metrics, "inverse_speedup", "{}"),
    ]


def scaling_curves(measurements: Sequence[Measurement], path: pathlib.Path) -> str:
    """Plots the curves, one panel per field, to `path`; returns the fitted lines in words, "" without any curve."""
    curves = {field: [each for each in measurements if each.cell["table"] == f"{CURVE}{field}"] for field in CURVES}
    curves = {field: points for field, points in curves.items() if points}
    if not curves:
        return ""
    figure = matplotlib.figure.Figure(figsize=(4.2 * len(curves), 3.6), layout="constrained")
    fits = []
    for axes, (field, of_field) in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True):
        points: dict[str, list[tuple[float, float]]] = {}
        for measurement in of_field:
            if measurement.ok:
                sizes = {**measurement.cell, **measurement.cell["model"]}
                point = sizes[CURVES[field]], decoding_metrics(measurement)["p50"]
                points.setdefault(measurement.system, []).append(point)
        for system, pairs in points.items():
            x, y = np.array(sorted(pairs)).T
            axes.plot(x, y, marker="o", label=system)
            if len(x) > 1:
                slope, intercept = np.polyfit(x, y, 1)
                exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
                fit = f"{intercept:.2f} ms + {slope:.4g} ms per unit; power law exponent {exponent:.2f}"
                fits.append(f"- {field}, `{system}`: {fit}")
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
    return "Least-squares fits of milliseconds per event step (all rows of the batch):\n\n" + "\n".join(fits)
