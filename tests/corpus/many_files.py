"""Preprocesses a corpus of many simulated files and prints the memory per file in bytes. Runs as a process of its own.

  python -m tests.corpus.many_files FOLDER COUNT
"""

import base64
import hashlib
import pathlib
import resource
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sage_jax.corpus import preprocess, runners
from sage_jax.corpus.near_duplicates import NUM_BINS
from sage_jax.corpus.workers import Failure
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.note_events import NoteEvents

EVENTS = np.arange(20, dtype=np.int16).reshape(4, 5)


def fake_run_tasks(encode, paths: Sequence[str], **limits: Any) -> Iterator[tuple[int, Any]]:
    """Replaces `run_tasks`, out of order: of 100 files, three are broken, one is a copy and two are near-duplicates."""
    loss = vars(QuantizationStats(notes=2, onset_error_ms=0.1))
    for start in range(0, len(paths), 50):
        for task in reversed(range(start, min(start + 50, len(paths)))):
            path, kind = paths[task], task % 100
            if kind < 3:
                yield task, Failure("broken", f"{path}: is not a MIDI file")
                continue
            digest = hashlib.sha256(str(task - (kind == 10)).encode()).hexdigest()[:16]
            values = np.random.default_rng(task - 20 * (kind in (40, 41))).integers(0, 2**16, NUM_BINS, dtype=np.uint16)
            sketch = base64.b64encode(values.tobytes()).decode()
            facts = {"notes": 2, "bars": 1, "hash": digest, "digest": digest, "sketch": sketch, "loss": loss}
            yield task, ({**facts, "seconds": 1.0, "parse_seconds": 0.5}, EVENTS)


def main(folder: str, count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = [(f"folder/{index:06d}.mid", f"/corpus/folder/{index:06d}.mid") for index in range(count)]
    preprocess.list_corpus = lambda corpus: files
    runners.run_tasks = fake_run_tasks
    preprocess.preprocess(f"folder:{pathlib.Path(folder).parent}", folder, NoteEvents(), show_progress=False)
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
