"""Tables, and documents of several parts, as reports have them."""

import re
from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def with_part(document: str, part: str) -> str:
    """The document with `part`, which begins with its heading of level two, in place of that of the same one, or behind all."""
    title, *parts = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    headings = [each.partition("\n")[0] for each in (*parts, part)]
    place = headings.index(headings[-1])
    return "\n\n".join(each.strip() for each in (title, *parts[:place], part, *parts[place + 1 :])) + "\n"
