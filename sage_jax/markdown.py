"""Tables, and documents of several parts, as reports have them."""

import pathlib
import re
from collections.abc import Iterable, Sequence

from sage_jax.files import replacing


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def write_part(path: pathlib.Path, title: str, part: str) -> None:
    """Writes `with_part` of what is in `path`, or of the document's title where nothing is."""
    with replacing(path) as temporary:
        temporary.write_text(with_part(path.read_text() if path.exists() else title, part))


def with_part(document: str, part: str) -> str:
    """The document with `part`, which begins with its heading of level two, in place of that of the same one, or behind all."""
    title, *parts = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    headings = [each.partition("\n")[0] for each in (*parts, part)]
    place = headings.index(headings[-1])
    return "\n\n".join(each.strip() for each in (title, *parts[:place], part, *parts[place + 1 :])) + "\n"
