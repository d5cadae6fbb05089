"""What the sections of a report have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.benchmark.config import Cell
from sage_jax.benchmark.figures import ratio
from sage_jax.benchmark.ratios import CONTROL
from sage_jax.markdown import markdown_table


def section(
    cell: Cell, header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[Mapping[str, Any]], reference: str
) -> str:
    """A heading, the model's sizes, the table, what its A/A pair says, and the systems that could not be measured.

    A column without any figure is left out.
    """
    model = ", ".join(f"{field} {value}" for field, value in sorted(cell.model.items()))
    failed = [f"Not measured: `{line['system']}`: {line['failed']}" for line in lines if "failed" in line]
    kept = [column for column in range(len(header)) if any(row[column] != "-" for row in rows)]
    table = markdown_table([header[column] for column in kept], [[row[column] for column in kept] for row in rows])
    return "\n\n".join([f"### {cell.table}: {cell}", f"{model}.", table, *control(lines, reference), *failed])


def control(lines: Sequence[Mapping[str, Any]], reference: str) -> list[str]:
    """What a table says of its A/A pair, where the table has ratios: a sentence, or two where the method failed."""
    measured = {line["system"]: line for line in lines if "about" in line}
    first, second = measured.get(reference), measured.get(reference + CONTROL)
    if first is None or second is None or (same := ratio(first, second)) is None:
        return []
    said = f"A/A: `{reference}` is {same} times as fast as itself, over {same.turns} turns."
    if same.excludes_one:
        said += " **This interval excludes 1: the method failed here, and no ratio of this table proves a difference.**"
    return [said]


def compared(lines: Sequence[Mapping[str, Any]], reference: str) -> bool:
    """Whether the A/A pair was measured, without which a table has no ratios."""
    measured = {line["system"] for line in lines if "about" in line}
    return {reference, reference + CONTROL} <= measured


def show(figures: Mapping[str, Any], name: str, form: str) -> str:
    """A figure in the form, or a hyphen where there is none."""
    return form.format(figures[name]) if name in figures else "-"
