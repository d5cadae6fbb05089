"""The metrics of a run, one JSON object a line in metrics.jsonl."""

import contextlib
import json
import os
import pathlib
from typing import Any

from sage_jax.errors import UserError
from sage_jax.files import replacing


class MetricsLog:
    """Appends to `path`, of which only the lines up to `step` are kept, so that a resumed run tells each step once."""

    def __init__(self, path: str | os.PathLike, step: int):
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._path = pathlib.Path(path)
        self._file = self._path.open("a")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what could not be written, which was told
            self._file.close()

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line, on disk for a reader when this returns; `kind` is 'start', 'train', 'skipped', 'valid' or 'crops'.

        Raises UserError where the disk doesn't take it.
        """
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror}; the last checkpoint is whole: make room, and the same command goes on"
            ) from error


def read_metrics(path: str | os.PathLike, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a metrics file (of one kind); none without the file, and without a last line that a kill cut off."""
    try:
        text = pathlib.Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if kind in (None, line["kind"])]
