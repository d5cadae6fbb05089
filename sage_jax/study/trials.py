"""A trial of the study: trains a model and evaluates it on each corpus. The result is cached in the trial's folder."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sage_jax.config import MUTABLE_ON_RESUME, RunConfig, diff, read_section
from sage_jax.corpus.shards import TokenShards, music_fingerprint, read_json
from sage_jax.corpus.splits import subsample_evenly
from sage_jax.environment import commit, describe
from sage_jax.evaluation import results
from sage_jax.evaluation.baselines import BASELINES
from sage_jax.evaluation.floors import floor_bits
from sage_jax.evaluation.model_under_test import TrainedModel
from sage_jax.evaluation.results import SystemScores
from sage_jax.evaluation.segmentations import marginal_gap
from sage_jax.evaluation.task import Task
from sage_jax.files import LOCK, write_json
from sage_jax.study.code import code_fingerprint
from sage_jax.study.config import StudyConfig, Trial, Variant, num_parameters
from sage_jax.study.results import LrTrialResult, TrialResult
from sage_jax.study.reuse import check_code, read_others
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.config import MERGES_FILE, retokenize
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training.best_step import BestStep
from sage_jax.training.checkpoint import FOLDER
from sage_jax.training.loop import train
from sage_jax.training.metric_logger import METRICS_FILE
from sage_jax.training.metrics import read_metrics
from sage_jax.weights.saved_model import SavedModel

RESULT = "result.json"
SHARDS = "shards"  # prefix in config.corpora of a folder of token shards
OPENINGS, OPENING_STEPS, DRAWS = 8, 64, 16  # of pieces whose other segmentations are sampled
LENGTHS = ("train.steps", "train.patience", "train.eval_every", "train.eval_batches")  # of a run that ends by patience
MODEL = "model"  # the name of the trained model in a table of scores


class Evaluator:
    """Evaluates trained models on the corpora of a study.

    config: the study's. workdir: its folder, with token shards in corpora/NAME.
    reuse: JSON files of studies in other workdirs, whose trials are not repeated. others, reused: their results, and their
    trials by identity.
    accept_code: whether trials of other code count.
    Raises UserError, naming the file, for results that must not be mixed with this study.
    """

    def __init__(
        self, config: StudyConfig, workdir: pathlib.Path, reuse: Sequence[pathlib.Path] = (), accept_code: bool = False
    ):
        self.config, self.workdir, self.accept_code = config, workdir, accept_code
        self._tasks: dict[str, tuple[Task, dict[str, SystemScores]]] = {}
        self.music = functools.cache(lambda corpus: music_fingerprint(self.shards(corpus)) or "")  # its fingerprint
        music = {name: self.music(name) for name in config.corpora} if reuse else {}
        self.others = read_others(reuse, music, config.run, dataclasses.asdict(config.evaluation), accept_code)
        self.reused: dict[str, TrialResult | LrTrialResult] = {
            trial.identity: trial for result in self.others for trial in (*result.lr_trials, *result.trials)
        }

    def shards(self, corpus: str) -> pathlib.Path:
        """The folder of a corpus's token shards."""
        return shards_folder(self.config, self.workdir, corpus)

    @property
    def tokenizer(self) -> NoteEvents:
        """That of the shards."""
        return read_section(NoteEvents, "tokenizer", self.config.run)

    def training(self, corpus: str) -> TokenShards:
        """The pieces of a corpus that the trials train on."""
        return TokenShards(self.shards(corpus), "train", self.tokenizer, self.config.run["data"].get("max_pieces", 0))

    def sections(self, variant: Variant) -> dict[str, dict[str, Any]]:
        """The config sections of a variant's run, with the shards that it trains on."""
        sections = self.config.sections(variant)
        sections["data"]["corpus"] = self.config.corpora[variant.corpus]
        sections["data"]["shards"] = str(self.shards(variant.corpus))
        return sections

    def trial_sections(self, trial: Trial) -> dict[str, dict[str, Any]]:
        """The config sections of a trial's run."""
        sections = self.sections(trial.variant)
        sections["optimizer"]["learning_rate"] = trial.learning_rate
        sections["train"]["seed"] = trial.seed
        if not trial.test_on:
            sections["train"]["steps"] = self.config.search_steps
        return sections

    def eval_spec(self, trial: Trial) -> dict[str, Any]:
        """What a trial is evaluated on and how, as JSON."""
        evaluation = dataclasses.asdict(self.config.evaluation) if trial.test_on else None
        return results.to_jsonable({"test_on": trial.test_on, "evaluation": evaluation})

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """The cached result of a trial; None if it is missing or of other settings or other music.

        Raises UserError for one of other code, unless that is accepted.
        """
        path = trial_folder(self.workdir, trial) / RESULT
        result = read_json(path)
        if result is None:
            return None
        cached = self._identity(result["trial"]["variant"]["corpus"], result["sections"], result["eval_spec"])
        if cached != self.identity(trial):
            return None
        check_code(path, {result.get("code", "")}, self.accept_code)
        return result

    def identity(self, trial: Trial) -> str:
        """A hash of everything that the result of a trial depends on except the code. It is the same on every machine."""
        return self._identity(trial.variant.corpus, self.trial_sections(trial), self.eval_spec(trial))

    def _identity(self, corpus: str, sections: Mapping[str, Any], eval_spec: Mapping[str, Any]) -> str:
        # Defaults are left out, so that a new field with a default keeps old identities.
        fields = {name: value for name, (_, value) in diff(_defaults(), RunConfig.from_dict(sections).to_dict()).items()}
        lengths = LENGTHS if "train.patience" in fields else ("train.steps",)
        fields = {name: value for name, value in fields.items() if name not in MUTABLE_ON_RESUME or name in lengths}
        music = {name: self.music(name) for name in dict.fromkeys((corpus, *eval_spec["test_on"]))}
        text = json.dumps([results.to_jsonable(fields), eval_spec, music], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def task(self, corpus: str) -> tuple[Task, dict[str, SystemScores]]:
        """The continuation task of a corpus, and the scores of its baselines."""
        if corpus not in self._tasks:
            task = Task.of(self.config.evaluation, self.shards(corpus), self.workdir)
            baselines = task.baselines()
            scores = {name: results.score(task.prompts, baselines[name].continuations) for name in BASELINES}
            self._tasks[corpus] = task, scores
        return self._tasks[corpus]

    def floors(self, corpus: str) -> dict[str, list[list[float]]]:
        """The floors of bits per note by name, as [bits, notes] of each piece that the likelihood is computed of."""
        path = self.workdir / "floors" / f"{corpus}.json"
        evaluation, training = self.config.evaluation, self.training(corpus)
        identity = [self.music(corpus), len(training), evaluation.split, evaluation.likelihood_pieces]
        if (known := read_json(path)) and known["identity"] == identity:
            return known["floors"]
        tokenizer = self.tokenizer
        shards = TokenShards(self.shards(corpus), evaluation.split, tokenizer, evaluation.likelihood_pieces)
        notes = [len(tokenizer.decode(events).notes) for events in shards]
        found = {
            name: [[float(bits), float(count)] for bits, count in zip(each, notes, strict=True)]
            for name, each in floor_bits(tokenizer, list(training), list(shards)).items()
        }
        write_json(path, {"identity": identity, "floors": found})
        return found

    def evaluate(self, corpus: str, folder: pathlib.Path) -> dict[str, Any]:
        """The likelihood and the scores, next to those of the baselines, of the model trained in `folder`, as JSON."""
        task, baselines = self.task(corpus)
        saved = SavedModel.open(folder, best=self.config.evaluation.use_best_checkpoint)
        model = TrainedModel.of(MODEL, saved, task)
        output = model.write(task, folder / "written")
        scores = {MODEL: results.score(task.prompts, output.continuations), **baselines}
        return results.to_jsonable(
            {
                "likelihood": model.log_likelihood(task),
                "scores": results.table(task.prompts, scores),
                "prompts": {
                    "pieces": results.cluster_ids(task.prompts),
                    "nmsi": {name: each.values["nmsi"] for name, each in scores.items()},
                },
                "step": model.step,
                "segmentations": _segmentations(model, task),
                "faults": dataclasses.asdict(output.faults) | {"failures": output.failures},
                "notes": list(output.notes),
            }
        )


def shards_folder(config: StudyConfig, workdir: pathlib.Path, corpus: str) -> pathlib.Path:
    """The folder of the token shards of a study's corpus."""
    kind, _, folder = config.corpora[corpus].partition(":")
    return pathlib.Path(folder) if kind == SHARDS else workdir / "corpora" / corpus


@functools.cache
def _defaults() -> dict[str, Any]:
    return RunConfig.from_dict({name: {} for name in ("tokenizer", "data", "model", "optimizer", "train")}).to_dict()


def trial_folder(workdir: pathlib.Path, trial: Trial) -> pathlib.Path:
    """The folder of a trial's files."""
    return workdir / "trials" / trial.name


def run_trial(trial: Trial, evaluator: Evaluator, say: Callable[[str], None]) -> dict[str, Any]:
    """The result of a trial: the cached one, or that of training (from a checkpoint if there is one) and evaluation."""
    if (cached := evaluator.result(trial)) is not None:
        return cached
    folder, sections = trial_folder(evaluator.workdir, trial), evaluator.trial_sections(trial)
    run = RunConfig.from_dict(sections)
    say(trial.name)
    _copy_merges(run, folder)
    _copy_search(trial, evaluator, folder)
    start = time.perf_counter()
    summary = train(ConfigDict(sections), folder)
    curve = [(line["step"], line["loss"]) for line in read_metrics(folder / METRICS_FILE, "valid")]
    result = {
        "trial": dataclasses.asdict(trial),
        "sections": run.to_dict(),
        "eval_spec": evaluator.eval_spec(trial),
        "model": run.model.name,
        "parameters": num_parameters(run.model),
        "events": summary["step"] * run.train.batch_size * run.data.context_events,
        "valid": summary["valid"],
        "curve": curve,
        "converged": stopped_improving([loss for _, loss in curve], run.train.patience),
        "cut": _cut_fraction(folder),
        "train_seconds": summary["train_seconds"],
        "compile_seconds": summary["compile_seconds"],
        "tests": {corpus: evaluator.evaluate(corpus, folder) for corpus in trial.test_on},
        "commit": commit(),
        "code": code_fingerprint(),
        "versions": describe(),
    }
    result = results.to_jsonable(result | {"seconds": time.perf_counter() - start})
    write_json(folder / RESULT, result, indent=1)
    # The final trial of the best rate goes on from here.
    if not evaluator.config.keep_checkpoints and (trial.test_on or not evaluator.config.search_is_whole):
        shutil.rmtree(folder / FOLDER)
    return result


def valid_loss(result: Mapping[str, Any]) -> float:
    """The validation loss of a trial's result: the lowest one where patience ended the run, else the last one."""
    if result.get("converged") is not None:
        return min(loss for _, loss in result["curve"])
    return result["valid"]["loss"]


def _segmentations(model: TrainedModel, task: Task) -> dict[str, float] | None:
    """Bits per note of the canonical ids and of all segmentations, over openings of the task's pieces; None without merges."""
    tokenizer = model.engine.tokenizer
    if not isinstance(tokenizer, RemiBpe) or not tokenizer.merges:
        return None
    pieces = [retokenize(events, task.tokenizer, tokenizer) for events in subsample_evenly(task.shards, OPENINGS)]
    config, params = model.engine.config, model.engine.params
    found = marginal_gap(config, params, tokenizer, pieces, min(OPENING_STEPS, model.context), DRAWS)
    canonical, marginal, notes = np.sum(found, axis=0)
    return {"canonical": canonical / notes, "marginal": marginal / notes, "pieces": len(pieces), "draws": DRAWS}


def stopped_improving(losses: Sequence[float], patience: int) -> bool | None:
    """Whether the last `patience` validation losses are not lower than the best one before them; None for patience 0."""
    best = BestStep(patience)
    for step, loss in enumerate(losses, start=1):
        best.add(step, loss)
    return best.exhausted if patience else None


def _copy_search(trial: Trial, evaluator: Evaluator, folder: pathlib.Path) -> None:
    """Copies the finished run of the learning rate search whose config is that of `trial`, if there is one."""
    search = dataclasses.replace(trial, test_on=())
    source = trial_folder(evaluator.workdir, search)
    searched = trial.test_on and trial.seed == 0 and evaluator.trial_sections(search) == evaluator.trial_sections(trial)
    if not searched or evaluator.result(search) is None or not (source / FOLDER).exists() or (folder / FOLDER).exists():
        return
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(RESULT, LOCK, FOLDER), dirs_exist_ok=True)
    # The checkpoints come last and at once, so that a copy that was stopped is made again.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        shutil.copytree(source / FOLDER, pathlib.Path(temporary) / FOLDER).rename(folder / FOLDER)


def _cut_fraction(folder: pathlib.Path) -> float:
    """The fraction of the steps of training crops that did not fit into them."""
    lines = read_metrics(folder / METRICS_FILE, "crops")
    return sum(line["cut"] for line in lines) / max(1, sum(line["steps"] for line in lines))


def _copy_merges(run: RunConfig, folder: pathlib.Path) -> None:
    """Copies the merges of another seed: they depend only on the corpus."""
    if not run.representation.merges or (folder / MERGES_FILE).exists():
        return
    for path in sorted(folder.parent.glob(f"*/{MERGES_FILE}")):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / MERGES_FILE)
        return
