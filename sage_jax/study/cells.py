"""One cell of the study: a model trained, and asked about each corpus; what it said stays in its folder."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable
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
from sage_jax.music.shards import read_json
from sage_jax.study.config import Cell, StudyConfig, num_parameters
from sage_jax.training.checkpoint import FOLDER, load_for_sampling
from sage_jax.training.config import RunConfig
from sage_jax.training.loop import train
from sage_jax.training.metrics import read_metrics
from sage_jax.training.recorder import METRICS_FILE

RESULT = "result.json"
EXAMPLE = "model"  # what scores of a cell's own stand under, beside the floors


class Examiner:
    """Asks trained models about the corpora of the study, whose shards lie in `workdir`/corpora/NAME."""

    def __init__(self, config: StudyConfig, workdir: pathlib.Path):
        self.config, self.workdir = config, workdir
        self._tasks: dict[str, tuple[Task, dict[str, Scored]]] = {}

    def shards(self, corpus: str) -> pathlib.Path:
        return self.workdir / "corpora" / corpus

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


def cell_folder(workdir: pathlib.Path, cell: Cell) -> pathlib.Path:
    """Where all that belongs to a cell is."""
    return workdir / "cells" / cell.name


def run_cell(config: StudyConfig, cell: Cell, examiner: Examiner, say: Callable[[str], None]) -> dict[str, Any]:
    """The result of a cell: what is in its folder, or else it is trained, from its checkpoint if there is one, and asked."""
    folder = cell_folder(examiner.workdir, cell)
    sections = _sections(config, cell, examiner)
    run = RunConfig.from_dict(sections)
    known = read_json(folder / RESULT)
    if known is not None and _same(run, known["sections"]) and known["asked"] == _asked(config, cell):
        return known
    say(cell.name)
    _share_merges(run, folder)
    began = time.perf_counter()
    trained = train(ConfigDict(sections), folder)
    result = {
        "cell": dataclasses.asdict(cell),
        "sections": run.to_dict(),
        "asked": _asked(config, cell),
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
    # The first seed's is what speed is measured with.
    if not config.keep_checkpoints and (cell.seed or not cell.test_on):
        shutil.rmtree(folder / FOLDER)
    return result


def _share_cut(folder: pathlib.Path) -> float:
    """Of the steps that crops had, those that had no room."""
    lines = read_metrics(folder / METRICS_FILE, "cut")
    return sum(line["cut"] for line in lines) / max(1, sum(line["steps"] for line in lines))


def _sections(config: StudyConfig, cell: Cell, examiner: Examiner) -> dict[str, dict[str, Any]]:
    sections = config.sections(cell.row)
    sections["data"]["corpus"] = config.corpora[cell.row.corpus]
    sections["data"]["shards"] = str(examiner.shards(cell.row.corpus))
    sections["optimizer"]["learning_rate"] = cell.learning_rate
    sections["train"]["seed"] = cell.seed
    return sections


def _same(run: RunConfig, saved: dict[str, dict[str, Any]]) -> bool:
    return not run.differences(saved) and run.train.steps == saved["train"]["steps"]


def _asked(config: StudyConfig, cell: Cell) -> dict[str, Any]:
    evaluation = dataclasses.asdict(config.evaluation) if cell.test_on else None
    return results.plain({"test_on": cell.test_on, "evaluation": evaluation})


def _share_merges(run: RunConfig, folder: pathlib.Path) -> None:
    """Merges are learned from the corpus alone: those of another seed are taken over."""
    if not run.representation.merges or (folder / MERGES_FILE).exists():
        return
    for there in sorted(folder.parent.glob(f"*/{MERGES_FILE}")):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there, folder / MERGES_FILE)
        return
