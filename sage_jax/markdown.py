"""Markdown tables, and documents whose sections are replaced one at a time."""

import pathlib
import re
from collections.abc import Iterable, Sequence

from sage_jax.files import replacing


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def write_part(path: pathlib.Path, title: str, part: str, before: str = "") -> None:
    """Applies `with_part` to the file `path`; a new file starts with `title`."""
    with replacing(path) as temporary:
        temporary.write_text(with_part(path.read_text() if path.exists() else title, part, before))


def with_part(document: str, part: str, before: str = "") -> str:
    """`document` with the section `part` in place of the section with the same level-two heading.

    A new section comes before the first one whose heading starts with `before`, unless its own does; without one, at the end.
    part: starts with its heading, '## ...'.
    """
    title, *parts = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    heading = part.partition("\n")[0]
    headings = [each.partition("\n")[0] for each in parts]
    if heading in headings:
        place, more = headings.index(heading), 1
    else:
        first = (index for index, each in enumerate(headings) if before and each.startswith(before))
        place, more = len(parts) if before and heading.startswith(before) else next(first, len(parts)), 0
    return "\n\n".join(each.strip() for each in (title, *parts[:place], part, *parts[place + more :])) + "\n"
