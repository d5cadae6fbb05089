"""Runners that read the files of a corpus: local worker processes, or a Beam pipeline. Both write the same shards."""

import dataclasses
import pathlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.progress import track

from sage_jax.corpus.shards import FILES_PER_SHARD, Record, ShardWriter, read_json, write_shard
from sage_jax.corpus.workers import Failure, run_tasks
from sage_jax.errors import UserError
from sage_jax.files import write_json

WORK_FOLDER = "work"  # subfolder with the list of files for each shard that a pipeline writes
File = tuple[str, str, str]  # (name, path, stamp)


@dataclasses.dataclass(frozen=True)
class Job:
    """How to read files and where to write shards; sent to every worker.

    encode: path -> (record, events [N, A]), or a Failure; picklable. folder: of the shards. fingerprint: of the tokenizer.
    max_seconds, max_bytes: limits per file on time and on address space.
    """

    encode: Callable[[str], tuple[dict[str, Any], np.ndarray] | Failure]
    folder: pathlib.Path
    fingerprint: str
    max_seconds: float
    max_bytes: int

    def limits(self) -> dict[str, Any]:
        """Keyword arguments of `run_tasks`."""
        return dict(max_seconds=self.max_seconds, max_bytes=self.max_bytes)


def run_locally(job: Job, files: Sequence[File], first: int, workers: int, show_progress: bool) -> None:
    """Reads `files` in worker processes (0: one per core) and writes shards numbered from `first`."""
    done = run_tasks(job.encode, PathList(files), workers=workers, **job.limits())
    with ShardWriter(job.folder, first, job.fingerprint, len(files)) as writer:
        for task, result in track(done, "MIDI to tokens", len(files), disable=not show_progress):
            writer.add(task, make_record(files[task], result))


def run_on_beam(job: Job, files: Sequence[File], first: int, options: str) -> None:
    """Reads `files` in an Apache Beam pipeline and writes shards numbered from `first`.

    options: Beam's command line options, such as '--runner=DataflowRunner --project=...'; empty for the DirectRunner.
    Each worker must have this package installed and access the corpus and the shard folder under the same paths.
    Raises UserError if Beam is not installed or the pipeline fails. Shards written before a failure are kept.
    """
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]  # an optional package
        from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]  # as above
    except ImportError as error:
        raise UserError(
            f"preprocess.runner is 'beam', which can't be imported ({error}); pip install -e '.[beam]', or use 'local'"
        ) from error
    # The pipeline itself contains only shard numbers, since runners limit its size.
    numbers = range(first, first - (-len(files) // FILES_PER_SHARD))
    for shard, number in enumerate(numbers):
        write_json(_work_path(job, number), files[shard * FILES_PER_SHARD : (shard + 1) * FILES_PER_SHARD])
    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            shards = pipeline | "shard numbers" >> beam.Create(numbers) | "distribute" >> beam.Reshuffle()
            _ = shards | "MIDI to tokens" >> beam.Map(encode_shard, job)
    except Exception as error:  # runners raise errors of any type
        detail = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the pipeline failed ({detail}); run the same command again to continue") from error
    finally:
        shutil.rmtree(_work_path(job, first).parent)


def encode_shard(number: int, job: Job) -> int:
    """Reads the files of one shard in a subprocess, writes the shard, and returns the number of files. Runs on Beam workers."""
    files = read_json(_work_path(job, number))
    if files is None:
        raise UserError(f"{_work_path(job, number)} is missing; all workers must access {job.folder} under this path")
    results = dict(run_tasks(job.encode, PathList(files), workers=1, **job.limits()))
    write_shard(job.folder, number, job.fingerprint, [make_record(file, results[task]) for task, file in enumerate(files)])
    return len(files)


def _work_path(job: Job, number: int) -> pathlib.Path:
    return job.folder / WORK_FOLDER / f"{number:05d}.json"


def make_record(file: File, result: Any) -> Record:
    """The entry of a file in its shard. result: of Job.encode, or a Failure."""
    name, path, stamp = file
    if isinstance(result, Failure):
        message = result.message.removeprefix(path).lstrip(": ")
        return {"name": name, "stamp": stamp, "reason": result.reason, "message": message}, None
    fields, events = result
    return {"name": name, "stamp": stamp, **fields}, events


class FileList(Sequence[File]):
    """A subset of the files of a corpus; entries are created on access, which saves memory.

    corpus: all files, from `list_corpus`. stamps: [P], of all files. rows: indices of the subset.
    """

    def __init__(self, corpus: Sequence[tuple[str, str]], stamps: np.ndarray, rows: np.ndarray):
        self._corpus, self._stamps, self._rows = corpus, stamps, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        row = int(self._rows[index])
        return *self._corpus[row], self._stamps[row].decode()


class PathList(Sequence[str]):
    """The paths of a sequence of files."""

    def __init__(self, files: Sequence[File]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> str:
        return self._files[index][1]
