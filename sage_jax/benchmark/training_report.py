"""Markdown tables of training speed and of communication between devices."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.benchmark.communication import COLLECTIVES
from sage_jax.benchmark.config import BenchmarkConfig, CommunicationCell, TrainingCell
from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.metrics import training_metrics
from sage_jax.benchmark.peers import TORCH_COUNTERPART, TRAINING_PEERS
from sage_jax.benchmark.report_section import has_control, section, show
from sage_jax.markdown import markdown_table

COLUMNS = (
    "system", "parameters", "ms/step p50", "p95", "p99", "tokens/s/device", "notes/s/device", "MFU", "data loading, %",
    "loader overhead", "peak memory, MB", "planned memory, MB", "compile time, s", "speedup over {reference}",
    "speedup over {peer}",
)  # fmt: skip
COMMUNICATION_COLUMNS = (
    "axis", "devices", "system", "batch", *(f"{kind}, MB" for kind in COLLECTIVES), "total, MB", "state, MB",
    "GFLOP", "bytes sent per 1,000 FLOP",
)  # fmt: skip


def about() -> str:
    """Explains the columns."""
    return f"""\
A train step is loss, gradient, clipping and AdamW on a full batch. Percentiles are over single steps, with the host waiting for
each. Rates are at the median step; tokens and notes are the predicted ones.

MFU is model-FLOP utilization: the operations that the model needs, over what the device can do in that time at its measured
rate of matrix products. The model needs two operations per weight and token, and four per pair of tokens that may attend, query
head and channel, three times that with the gradient. Rematerialized and masked operations count nothing.

Data loading is the time of the loader alone over that of a step. Loader overhead is the additional time of a step when the
loader runs at the same time. Planned memory is XLA's plan for a step. Speedups are ratios of the time of single steps. A peer
is the same model as `{TORCH_COUNTERPART}` in PyTorch, optimized as far as we could; the last column compares with the faster
one."""


def table(cell: TrainingCell, measurements: Sequence[Measurement], config: BenchmarkConfig) -> str:
    """The section of a cell."""
    measured = {each.system: each for each in measurements if each.ok}
    median = lambda each: statistics.median(second for turn in each.seconds for second in turn)
    peer = min((each for name, each in measured.items() if name in TRAINING_PEERS), key=median, default=None)
    header = [column.format(reference=config.reference, peer=peer.system if peer else "a peer") for column in COLUMNS]
    reference, compared = (measured[config.reference], peer) if has_control(measurements, config.reference) else (None, None)
    rows = [_row(each, training_metrics(each, reference, compared)) for each in measured.values()]
    return section(cell, header, rows, measurements, config.reference)


def communication(cells: Sequence[tuple[CommunicationCell, Sequence[Measurement]]]) -> str:
    """The tables of weak and strong scaling, from all cells and their measurements."""
    counts = [
        {**program, "devices": cell.devices, "system": measurement.system}
        for cell, measurements in cells
        for measurement in measurements
        for program in measurement.programs
    ]
    first = cells[0][0]
    errors = [
        f"Not measured: `{measurement.system}` on {cell.devices}: {measurement.error}"
        for cell, measurements in cells
        for measurement in measurements
        if not measurement.ok
    ]
    model = ", ".join(f"{field} {value}" for field, value in sorted(first.model.items()))
    parts = [
        f"""\
### communication: crops of {first.events:,} events on fake devices

{model}.

Counted in programs that are compiled for fake devices and never run, so nothing is timed. All numbers are per device and step:
the megabytes of the results of its collectives (a ring sends at most twice that), the state that it holds (parameters and
AdamW's moments), and its even share of the model's operations."""
    ]
    for scaling, size in (("weak", f"rows per device: {first.rows}"), ("strong", f"rows in all: {first.batch}")):
        of_kind = [count for count in counts if count["scaling"] == scaling]
        order = {axis: place for place, axis in enumerate(first.axes)}
        of_kind.sort(key=lambda count: (count["devices"] > 1, order[count["axis"]], count["devices"]))
        table = markdown_table(COMMUNICATION_COLUMNS, map(_communication_row, of_kind))
        parts.append(f"{scaling.capitalize()} scaling, {size}.\n\n{table}")
    remarks = dict.fromkeys(
        f"Along {count['axis']} {count['devices']}, `{count['system']}`: {remark}."
        for count in counts
        if count["scaling"] == "strong"  # the batch does not change how parameters are sharded
        for remark in count["remarks"]
    )
    return "\n\n".join([*parts, *errors, *remarks])


def _row(measurement: Measurement, metrics: Mapping[str, Any]) -> list[str]:
    metadata = measurement.metadata
    planned = metadata.get("planned_bytes")
    return [
        measurement.system,
        f"{metadata['parameters']:,}",
        *(show(metrics, name, "{:,.1f}") for name in ("p50", "p95", "p99")),
        show(metrics, "tokens_per_second", "{:,.0f}"),
        show(metrics, "notes_per_second", "{:,.0f}"),
        show(metrics, "mfu", "{:.0%}"),
        show(metrics, "data_loading", "{:.2%}"),
        show(metrics, "loader_overhead", "{:+.1%}"),
        f"{max(measurement.peak_megabytes):,.0f}",
        "-" if planned is None else f"{planned / 1e6:,.0f}",
        f"{metadata['compile_seconds']:.1f}",
        show(metrics, "speedup", "{}"),
        show(metrics, "peer_speedup", "{}"),
    ]


def _communication_row(count: Mapping[str, Any]) -> list[str]:
    sent = sum(count["sent"].values())
    return [
        count["axis"] if count["devices"] > 1 else "-",
        f"{count['devices']}",
        count["system"],
        f"{count['batch']}",
        *(f"{count['sent'][kind] / 1e6:,.2f}" if kind in count["sent"] else "-" for kind in COLLECTIVES),
        f"{sent / 1e6:,.2f}",
        f"{count['state_bytes'] / 1e6:,.2f}",
        f"{count['operations'] / 1e9:,.2f}",
        f"{1000 * sent / count['operations']:.3g}",
    ]
