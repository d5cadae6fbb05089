"""Who reads the files of a corpus: worker processes of this machine, or a Beam pipeline. Both write the same shards."""

import dataclasses
import pathlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.progress import track

from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.music.shards import FILES_PER_SHARD, Answer, ShardWriter, read_json, write_shard
from sage_jax.music.workers import Failure, run_tasks

WORK = "work"  # beside the shards: which files are in each shard that a pipeline is to write
File = tuple[str, str, str]  # the name of a file, its path and its stamp


@dataclasses.dataclass(frozen=True)
class Job:
    """How to read a file, and where its shard goes: all that a machine needs to know besides which files.

    encode: path -> facts and events [N, A], or a Failure; picklable by name. folder: where the shards are.
    max_seconds, max_bytes: what one file may cost.
    """

    encode: Callable[[str], tuple[dict[str, Any], np.ndarray] | Failure]
    folder: pathlib.Path
    fingerprint: str
    max_seconds: float
    max_bytes: int

    def limits(self) -> dict[str, Any]:
        return dict(max_seconds=self.max_seconds, max_bytes=self.max_bytes)


def run_locally(job: Job, files: Sequence[File], first: int, workers: int, show_progress: bool) -> None:
    """Reads `files` in worker processes (0: one per core) and writes them as shards from number `first` on."""
    done = run_tasks(job.encode, Paths(files), workers=workers, **job.limits())
    with ShardWriter(job.folder, first, job.fingerprint, len(files)) as writer:
        for task, answer in track(done, "MIDI to tokens", len(files), disable=not show_progress):
            writer.add(task, make_answer(files[task], answer))


def run_on_beam(job: Job, files: Sequence[File], first: int, options: str) -> None:
    """Reads `files` in an Apache Beam pipeline and writes them as shards from number `first` on.

    options: as Beam's command line has them, such as '--runner=DataflowRunner --project=...'; DirectRunner without any. Every
    worker must have this code installed, and see the corpus and the folder of the shards under the same paths. Raises
    UserError where Beam is not installed or the pipeline fails; shards that are written by then are kept.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            f"preprocess.runner is 'beam', which can't be imported ({error}); pip install -e '.[beam]', or take 'local'"
        ) from error
    # The pipeline itself holds the numbers of shards only: runners limit its size.
    numbers = range(first, first - (-len(files) // FILES_PER_SHARD))
    for shard, number in enumerate(numbers):
        write_json(_work_path(job, number), files[shard * FILES_PER_SHARD : (shard + 1) * FILES_PER_SHARD])
    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            shards = pipeline | "numbers of shards" >> beam.Create(numbers) | "spread" >> beam.Reshuffle()
            _ = shards | "MIDI to tokens" >> beam.Map(encode_shard, job)
    except Exception as error:  # whatever a runner raises
        detail = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the pipeline failed ({detail}); the same command goes on with what is not done yet") from error
    finally:
        shutil.rmtree(_work_path(job, first).parent)


def encode_shard(number: int, job: Job) -> int:
    """Reads the files of one shard, in a process that may die of one, and writes it; how many they are. Runs anywhere."""
    files = read_json(_work_path(job, number))
    if files is None:
        raise UserError(f"{_work_path(job, number)} is missing; every worker must see {job.folder} under this path")
    answers = dict(run_tasks(job.encode, Paths(files), workers=1, **job.limits()))
    write_shard(job.folder, number, job.fingerprint, [make_answer(file, answers[task]) for task, file in enumerate(files)])
    return len(files)


def _work_path(job: Job, number: int) -> pathlib.Path:
    return job.folder / WORK / f"{number:05d}.json"


def make_answer(file: File, answer: Any) -> Answer:
    """What goes into a shard: the record of a file and, where it is kept, its events."""
    name, path, stamp = file
    if isinstance(answer, Failure):
        message = answer.message.removeprefix(path).lstrip(": ")
        return {"name": name, "stamp": stamp, "reason": answer.reason, "message": message}, None
    facts, events = answer
    return {"name": name, "stamp": stamp, **facts}, events


class Files(Sequence[File]):
    """Some of the files of a corpus, made as they are asked for.

    listed: all of them, as `list_corpus` has them. stamps: of each [P]. places: which ones.
    """

    def __init__(self, listed: Sequence[tuple[str, str]], stamps: np.ndarray, places: np.ndarray):
        self._listed, self._stamps, self._places = listed, stamps, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = self._places[index]
        return *self._listed[place], self._stamps[place].decode()


class Paths(Sequence[str]):
    """The paths of files."""

    def __init__(self, files: Sequence[File]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> str:
        return self._files[index][1]
