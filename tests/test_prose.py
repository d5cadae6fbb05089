"""Our prose uses the field's words: predict, attend, encode, evaluate, capacity, after."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
BANNED = re.compile(r"\b(foretell\w*|foretold|hear|hears|heard|deaf|tell|tells|told|rooms|behind)\b", re.IGNORECASE)
PLACES = ("README.md", "docs", "sage_jax", "launch", "configs", "tests", "third_party/peers", "findings")
SUFFIXES = {".py", ".md", ".sh", ".html", ".yaml", ".sbatch"}


def test_no_file_uses_words_that_a_reader_would_have_to_translate():
    here = pathlib.Path(__file__)
    found = []
    for place in PLACES:
        path = ROOT / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in SUFFIXES and file != here:
                lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
                found += [f"{file.relative_to(ROOT)}:{number}: {line.strip()}" for number, line in lines if BANNED.search(line)]
    assert not found, "\n".join(found)
