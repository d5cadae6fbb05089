"""Parts that the sections of a benchmark report share."""

from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.benchmark.config import Cell
from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.metrics import step_ratio
from sage_jax.benchmark.ratios import CONTROL
from sage_jax.markdown import markdown_table


def section(
    cell: Cell, header: Sequence[str], rows: Sequence[Sequence[str]], measurements: Sequence[Measurement], reference: str
) -> str:
    """A heading, the model's sizes, the table without its empty columns, the A/A result, and the systems with errors."""
    model = ", ".join(f"{field} {value}" for field, value in sorted(cell.model.items()))
    errors = [f"Not measured: `{each.system}`: {each.error}" for each in measurements if not each.ok]
    kept = [column for column in range(len(header)) if any(row[column] != "-" for row in rows)]
    table = markdown_table([header[column] for column in kept], [[row[column] for column in kept] for row in rows])
    return "\n\n".join([f"### {cell.table}: {cell}", f"{model}.", table, *control(measurements, reference), *errors])


def control(measurements: Sequence[Measurement], reference: str) -> list[str]:
    """The A/A result of a table in a sentence, or two if the method failed; nothing without a ratio."""
    measured = {each.system: each for each in measurements if each.ok}
    first, second = measured.get(reference), measured.get(reference + CONTROL)
    if first is None or second is None or (same := step_ratio(first, second)) is None:
        return []
    sentence = f"A/A: `{reference}` is {same} times as fast as itself, over {same.turns} turns."
    if same.excludes_one:
        sentence += " **This interval excludes 1: the method failed here, and no ratio of this table proves a difference.**"
    return [sentence]


def has_control(measurements: Sequence[Measurement], reference: str) -> bool:
    """Whether the A/A pair was measured. A table without it has no ratios."""
    measured = {each.system for each in measurements if each.ok}
    return {reference, reference + CONTROL} <= measured


def show(metrics: Mapping[str, Any], name: str, form: str) -> str:
    """The metric in the format, or a hyphen if it is missing."""
    return form.format(metrics[name]) if name in metrics else "-"
