"""Markdown tables, and documents whose sections are replaced one at a time."""

import pathlib
import re
from collections.abc import Iterable, Sequence

from sage_jax.files import replacing


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def write_part(path: pathlib.Path, title: str, part: str) -> None:
    """Applies `with_part` to the file `path`; a new file starts with `title`."""
    with replacing(path) as temporary:
        temporary.write_text(with_part(path.read_text() if path.exists() else title, part))


def with_part(document: str, part: str) -> str:
    """`document` with the section `part` in place of the section with the same level-two heading, or else at the end.

    part: starts with its heading, '## ...'.
    """
    title, *parts = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    headings = [each.partition("\n")[0] for each in (*parts, part)]
    place = headings.index(headings[-1])
    return "\n\n".join(each.strip() for each in (title, *parts[:place], part, *parts[place + 1 :])) + "\n"
