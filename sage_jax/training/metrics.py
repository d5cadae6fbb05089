"""metrics.jsonl: the metrics of a run, one JSON object per line."""

import contextlib
import json
import os
import pathlib
from typing import Any

from sage_jax.errors import UserError
from sage_jax.files import replacing

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends to the metrics file `path` of a run that starts from `step`.

    Lines of later steps are removed first, so that a resumed run logs each step once.
    """

    def __init__(self, path: str | os.PathLike, step: int):
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._path = pathlib.Path(path)
        self._file = self._path.open("a")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # `write` has reported the failure
            self._file.close()

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Writes one line and flushes it; `kind` is 'start', 'train', 'skipped', 'valid' or 'crops'.

        Raises UserError if the disk is full or gone.
        """
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror}; the last checkpoint is complete: free some space and run the "
                "same command again"
            ) from error


def read_metrics(path: str | os.PathLike, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a metrics file, or those of one `kind`. Empty if there is no file; an incomplete last line is ignored."""
    try:
        text = pathlib.Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if kind in (None, line["kind"])]
