"""Tables of training in Markdown: how fast it is, and what devices would send each other."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.benchmark.communication import COLLECTIVES
from sage_jax.benchmark.config import BenchmarkConfig, ScalingCell, TrainingCell
from sage_jax.benchmark.figures import summarise_training
from sage_jax.benchmark.sections import compared, section, show
from sage_jax.benchmark.systems import REBUILT, TRAINING_PEERS
from sage_jax.markdown import markdown_table

COLUMNS = (
    "system", "parameters", "ms/step p50", "p95", "p99", "tokens/s a device", "notes/s a device", "MFU",
    "reading a batch, of a step", "training with the loader is slower by", "peak, MB", "XLA's plan, MB", "compiling, s",
    "times {reference}", "times {peer}",
)  # fmt: skip
SCALING_COLUMNS = (
    "along", "devices", "system", "batch", *(f"{kind}, MB" for kind in COLLECTIVES), "all of it, MB", "state, MB",
    "operations, G", "bytes sent per 1,000 operations",
)  # fmt: skip


def about() -> str:
    """What the columns are."""
    return f"""\
A step of training is loss, gradient, clipping and AdamW on a full batch; its percentiles are over single steps, the host
waiting for each, and what follows is at the median. Tokens and notes are those that are predicted. MFU, model-FLOP
utilisation, is the operations that the model needs (two for each weight and token, four for each pair of tokens of which one
may attend to the other, head and channel; three times that with the gradient; what is computed again or masked away counts
nothing) over what the device would do in that time at its measured rate of matrix products, not at that of its data sheet. A
peer is the same model as `{REBUILT}` in PyTorch, as fast as we could make it; the last column is against the faster one.
Reading a batch is the loader alone, with nothing else to do; training with it overlaps that with the steps. Ratios are of the
time of single steps."""


def table(cell: TrainingCell, lines: Sequence[Mapping[str, Any]], config: BenchmarkConfig) -> str:
    """The section of a cell, from the lines of its measurements."""
    measured = {line["system"]: line for line in lines if "about" in line}
    middle = lambda line: statistics.median(second for run in line["seconds"] for second in run)
    peer = min((line for name, line in measured.items() if name in TRAINING_PEERS), key=middle, default=None)
    header = [column.format(reference=config.reference, peer=peer["system"] if peer else "a peer") for column in COLUMNS]
    paired = compared(lines, config.reference)
    reference, other = (measured[config.reference], peer) if paired else (None, None)
    rows = [_row(line, summarise_training(line, reference, other)) for line in measured.values()]
    return section(cell, header, rows, lines, config.reference)


def scaling(cells: Sequence[tuple[ScalingCell, Sequence[Mapping[str, Any]]]]) -> str:
    """The tables of weak and of strong scaling, from all cells and their lines."""
    counts = [
        {**each, "devices": cell.devices, "system": line["system"]}
        for cell, lines in cells
        for line in lines
        for each in line.get("counted", ())
    ]
    first = cells[0][0]
    failed = [
        f"Not counted: `{line['system']}` on {cell.devices}: {line['failed']}"
        for cell, lines in cells
        for line in lines
        if "failed" in line
    ]
    model = ", ".join(f"{field} {value}" for field, value in sorted(first.model.items()))
    parts = [
        f"""\
### scaling: crops of {first.events:,} events on fake devices

{model}.

Counted in programs that are compiled for so many devices and not run, so that nothing is timed: for each device and step the
megabytes of the results of its collectives (a ring sends at most twice that), what it holds of the state (parameters,
and what AdamW knows of them), and its even share of the model's operations."""
    ]
    for kind, size in (("weak", f"rows for each device: {first.rows}"), ("strong", f"rows in all: {first.batch}")):
        of_kind = [count for count in counts if count["scaling"] == kind]
        order = {axis: place for place, axis in enumerate(first.axes)}
        of_kind.sort(key=lambda count: (count["devices"] > 1, order[count["axis"]], count["devices"]))
        table = markdown_table(SCALING_COLUMNS, map(_scaling_row, of_kind))
        parts.append(f"{kind.capitalize()} scaling, {size}.\n\n{table}")
    remarks = dict.fromkeys(
        f"Along {count['axis']} {count['devices']}, `{count['system']}`: {remark}."
        for count in counts
        if count["scaling"] == "strong"  # how much there is to compute changes nothing in how it is cut
        for remark in count["remarks"]
    )
    return "\n\n".join([*parts, *failed, *remarks])


def _row(line: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    about = line["about"]
    planned = about.get("planned_bytes")
    return [
        line["system"],
        f"{about['parameters']:,}",
        *(show(figures, name, "{:,.1f}") for name in ("p50", "p95", "p99")),
        show(figures, "tokens_per_second", "{:,.0f}"),
        show(figures, "notes_per_second", "{:,.0f}"),
        show(figures, "mfu", "{:.0%}"),
        show(figures, "read_share", "{:.2%}"),
        show(figures, "loading", "{:+.1%}"),
        f"{max(line['peak_megabytes']):,.0f}",
        "-" if planned is None else f"{planned / 1e6:,.0f}",
        f"{about['compile_seconds']:.1f}",
        show(figures, "speedup", "{}"),
        show(figures, "of_peer", "{}"),
    ]


def _scaling_row(count: Mapping[str, Any]) -> list[str]:
    sent = sum(count["sent"].values())
    return [
        count["axis"] if count["devices"] > 1 else "-",
        f"{count['devices']}",
        count["system"],
        f"{count['batch']}",
        *(f"{count['sent'][kind] / 1e6:,.2f}" if kind in count["sent"] else "-" for kind in COLLECTIVES),
        f"{sent / 1e6:,.2f}",
        f"{count['held_bytes'] / 1e6:,.2f}",
        f"{count['operations'] / 1e9:,.2f}",
        f"{1000 * sent / count['operations']:.3g}",
    ]
