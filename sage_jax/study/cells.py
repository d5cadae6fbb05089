"""One cell of the study: a model trained, and asked about each corpus; what it said stays in its folder."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from sage_jax.environment import commit, describe
from sage_jax.evaluation import results
from sage_jax.evaluation.floors import FLOORS
from sage_jax.evaluation.results import Scored
from sage_jax.evaluation.task import Task
from sage_jax.evaluation.trained import TrainedModel
from sage_jax.files import write_json
from sage_jax.music.representation import MERGES_FILE
from sage_jax.music.shards import music_fingerprint, read_json
from sage_jax.study.config import Cell, Row, StudyConfig, num_parameters
from sage_jax.training.checkpoint import FOLDER, load_for_sampling
from sage_jax.training.config import MAY_CHANGE, RunConfig, changes
from sage_jax.training.loop import train
from sage_jax.training.metrics import read_metrics
from sage_jax.training.recorder import METRICS_FILE

RESULT = "result.json"
MADE = "shards"  # in config.corpora: music that has been preprocessed, such as on another machine
EXAMPLE = "model"  # what scores of a cell's own stand under, beside the floors


class Examiner:
    """Asks trained models about the corpora of the study, whose shards lie in `workdir`/corpora/NAME or where they were made.

    known: what `collect` told of cells that were done elsewhere, by their identity.
    """

    def __init__(self, config: StudyConfig, workdir: pathlib.Path, known: Mapping[str, Mapping[str, Any]] | None = None):
        self.config, self.workdir, self.known = config, workdir, known or {}
        self._tasks: dict[str, tuple[Task, dict[str, Scored]]] = {}
        self._music = functools.cache(lambda corpus: music_fingerprint(self.shards(corpus)))

    def shards(self, corpus: str) -> pathlib.Path:
        kind, _, folder = self.config.corpora[corpus].partition(":")
        return pathlib.Path(folder) if kind == MADE else self.workdir / "corpora" / corpus

    def sections(self, row: Row) -> dict[str, dict[str, Any]]:
        """The sections of the run of a row, with the shards that it is trained on."""
        sections = self.config.sections(row)
        sections["data"]["corpus"] = self.config.corpora[row.corpus]
        sections["data"]["shards"] = str(self.shards(row.corpus))
        return sections

    def sections_of(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Those of its row, with what is the cell's own."""
        sections = self.sections(cell.row)
        sections["optimizer"]["learning_rate"] = cell.learning_rate
        sections["train"]["seed"] = cell.seed
        if not cell.test_on:
            sections["train"]["steps"] = self.config.search_steps
        return sections

    def asked(self, cell: Cell) -> dict[str, Any]:
        """What a cell's model is asked, JSON-ready."""
        evaluation = dataclasses.asdict(self.config.evaluation) if cell.test_on else None
        return results.plain({"test_on": cell.test_on, "evaluation": evaluation})

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What is in the folder of a cell, if it is of this very cell and not of one with other settings or other music."""
        found = read_json(cell_folder(self.workdir, cell) / RESULT)
        return found if found is not None and self.identity_of(found) == self.identity(cell) else None

    def identity(self, cell: Cell) -> str:
        """A hash of all that the result of a cell depends on but the code: the same on every machine."""
        return self._identity(cell.row.corpus, self.sections_of(cell), self.asked(cell))

    def identity_of(self, result: Mapping[str, Any]) -> str:
        """The identity of the cell that a result of this workdir is of."""
        return self._identity(result["cell"]["row"]["corpus"], result["sections"], result["asked"])

    def _identity(self, corpus: str, sections: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
        # What has its default is left out, so that a field that is new changes nothing.
        own = {name: value for name, (_, value) in changes(_defaults(), RunConfig.from_dict(sections).to_dict()).items()}
        own = {name: value for name, value in own.items() if name not in MAY_CHANGE or name == "train.steps"}
        music = {name: self._music(name) for name in dict.fromkeys((corpus, *asked["test_on"]))}
        told = json.dumps([results.plain(own), asked, music], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def task(self, corpus: str) -> tuple[Task, dict[str, Scored]]:
        """The task that a corpus sets, and how its floors score."""
        if corpus not in self._tasks:
            task = Task.of(self.config.evaluation, self.shards(corpus), self.workdir)
            floors = task.floors()
            scored = {name: results.score(task.prompts, floors[name].continuations) for name in FLOORS}
            self._tasks[corpus] = task, scored
        return self._tasks[corpus]

    def ask(self, corpus: str, folder: pathlib.Path) -> dict[str, Any]:
        """What the model trained in `folder` scores on a corpus, with the floors beside it, and how well it foretells it."""
        task, floors = self.task(corpus)
        model = TrainedModel.of(EXAMPLE, folder, load_for_sampling(folder), task)
        written = model.write(task, folder / "written")
        scored = {EXAMPLE: results.score(task.prompts, written.continuations), **floors}
        found = {
            "likelihood": model.foretell(task),
            "scores": results.table(task.prompts, scored),
            "faults": dataclasses.asdict(written.faults) | {"failures": written.failures},
            "notes": list(written.notes),
        }
        return results.plain(found)


@functools.cache
def _defaults() -> dict[str, Any]:
    return RunConfig.from_dict({name: {} for name in ("tokenizer", "data", "model", "optimizer", "train")}).to_dict()


def cell_folder(workdir: pathlib.Path, cell: Cell) -> pathlib.Path:
    """Where all that belongs to a cell is."""
    return workdir / "cells" / cell.name


def run_cell(cell: Cell, examiner: Examiner, say: Callable[[str], None]) -> dict[str, Any]:
    """The result of a cell: what is in its folder, or else it is trained, from its checkpoint if there is one, and asked."""
    if (known := examiner.result(cell)) is not None:
        return known
    folder, sections = cell_folder(examiner.workdir, cell), examiner.sections_of(cell)
    run = RunConfig.from_dict(sections)
    say(cell.name)
    _share_merges(run, folder)
    began = time.perf_counter()
    trained = train(ConfigDict(sections), folder)
    result = {
        "cell": dataclasses.asdict(cell),
        "sections": run.to_dict(),
        "asked": examiner.asked(cell),
        "model": run.model.name,
        "parameters": num_parameters(run.model),
        "events": run.train.steps * run.train.batch_size * run.data.num_events,
        "valid": trained["valid"],
        "cut": _share_cut(folder),
        "train_seconds": trained["train_seconds"],
        "compile_seconds": trained["compile_seconds"],
        "tests": {corpus: examiner.ask(corpus, folder) for corpus in cell.test_on},
        "commit": commit(),
        "versions": describe(),
    }
    result = results.plain(result | {"seconds": time.perf_counter() - began})
    write_json(folder / RESULT, result, indent=1)
    if not examiner.config.keep_checkpoints:
        shutil.rmtree(folder / FOLDER)
    return result


def _share_cut(folder: pathlib.Path) -> float:
    """Of the steps that crops had, those that had no room."""
    lines = read_metrics(folder / METRICS_FILE, "crops")
    return sum(line["cut"] for line in lines) / max(1, sum(line["steps"] for line in lines))


def _share_merges(run: RunConfig, folder: pathlib.Path) -> None:
    """Merges are learned from the corpus alone: those of another seed are taken over."""
    if not run.representation.merges or (folder / MERGES_FILE).exists():
        return
    for there in sorted(folder.parent.glob(f"*/{MERGES_FILE}")):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there, folder / MERGES_FILE)
        return
