"""The metrics of a run, one JSON object a line in metrics.jsonl."""

import json
import os
import pathlib
from typing import Any

from sage_jax.files import replacing


class MetricsLog:
    """Appends to `path`, of which only the lines up to `step` are kept, so that a resumed run tells each step once."""

    def __init__(self, path: str | os.PathLike, step: int):
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = pathlib.Path(path).open("a")

    def close(self) -> None:
        self._file.close()

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line, on disk for a reader when this returns; `kind` is 'start', 'train', 'valid' or 'cut'."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()


def read_metrics(path: str | os.PathLike, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a metrics file (of one kind); none without the file, and without a last line that a kill cut off."""
    try:
        text = pathlib.Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if kind in (None, line["kind"])]
