"""What the sections of a report have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sage_jax.benchmark.config import Cell
from sage_jax.markdown import markdown_table


def section(cell: Cell, header: Sequence[str], rows: Iterable[Sequence[str]], lines: Iterable[Mapping[str, Any]]) -> str:
    """A heading, the model's sizes, the table, and the systems of `lines` that could not be measured."""
    model = ", ".join(f"{field} {value}" for field, value in sorted(cell.model.items()))
    failed = [f"Not measured: `{line['system']}`: {line['failed']}" for line in lines if "failed" in line]
    return "\n\n".join([f"### {cell.table}: {cell}", f"{model}.", markdown_table(header, rows), *failed])


def show(figures: Mapping[str, Any], name: str, form: str) -> str:
    """A figure in the form, or a hyphen where there is none."""
    return form.format(figures[name]) if name in figures else "-"


def spread(figures: Mapping[str, Any], name: str) -> str:
    """A median and its quartiles."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*figures[name]) if name in figures else "-"
