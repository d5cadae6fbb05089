"""Evaluates trained models and folders of MIDI files on one split, and writes a report."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sage_jax.corpus.shards import music_fingerprint
from sage_jax.environment import commit, describe
from sage_jax.errors import UserError
from sage_jax.evaluation import results
from sage_jax.evaluation.baselines import BASELINES
from sage_jax.evaluation.candidates import read_candidates
from sage_jax.evaluation.generation import ProgressCallback, SystemOutput
from sage_jax.evaluation.memorization import longest_shared_ngrams
from sage_jax.evaluation.model_under_test import TrainedModel
from sage_jax.evaluation.musicality import histograms
from sage_jax.evaluation.outputs import save_music, save_numbers, save_prompts
from sage_jax.evaluation.prompts import cut
from sage_jax.evaluation.report import write_report
from sage_jax.evaluation.results import Evaluation
from sage_jax.evaluation.task import EvaluationConfig, Task
from sage_jax.music.notes import Piece
from sage_jax.training.checkpoint import FOLDER
from sage_jax.weights.saved_model import SavedModel, shards_folder

REFERENCE = "truth"  # the name of the reference continuations among the systems
FEW_PIECES = 20  # with fewer pieces the report warns about the intervals


def evaluate(
    config: EvaluationConfig,
    workdirs: Mapping[str, pathlib.Path],
    candidates: Mapping[str, pathlib.Path],
    output: pathlib.Path,
    command: str,
    console: Console | None = None,
    published: Mapping[str, str | os.PathLike] | None = None,
    shards_only: bool = False,
) -> Evaluation:
    """Evaluates the newest checkpoint of each workdir, and folders of MIDI files, on prompts from the first workdir's shards.

    workdirs, candidates: folders by system name.
    If the first workdir has no checkpoint, it is not scored. shards_only: of the first workdir, `data` alone is used.
    published: weights by system name, each a name or a folder.
    output: gets prompts/, midi/, evaluation.json, scores.json, report.md and plots. It also keeps the generated events, so that
    a stopped call resumes. command: the command line, for the report. Raises UserError for mistakes that a user can correct.
    """
    console = console or Console()
    say = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    published = published or {}
    _check_names([*workdirs, *published], candidates, output)
    runs = _load_runs(config, workdirs, shards_only)
    first = next(iter(workdirs))
    task = Task.of(config, shards_folder(workdirs[first], runs[first].run if first in runs else None), workdirs[first])
    runs |= {name: SavedModel.open(source) for name, source in published.items()}
    models = [TrainedModel.of(name, saved, task) for name, saved in runs.items()]
    prompts = task.prompts
    num_pieces = len({prompt.name for prompt in prompts})
    total = len(task.pieces)
    say(f"{len(prompts)} prompts from {num_pieces} of {total} pieces of the {config.split} split, one every {task.hop} bars")

    # Candidates first: a broken folder must fail before the models spend their time.
    outputs: dict[str, SystemOutput] = {}
    for name, folder in candidates.items():
        outputs[name] = read_candidates(folder, prompts, config.samples, config.candidates_include_prompt)
        for line in outputs[name].notes:
            say(f"{name}: {line}")
    save_prompts(output / "prompts", prompts)
    outputs |= task.baselines()
    likelihoods = {}
    with _progress(console) as progress:
        for model in models:
            outputs[model.name] = model.write(task, output / "written", _callback(progress, f"{model.name}: continuations"))
            likelihoods[model.name] = model.log_likelihood(task, _callback(progress, f"{model.name}: likelihood"))
    tested = [*(model.name for model in models), *candidates]
    order = [*tested, *BASELINES]
    scored = {name: results.score(prompts, outputs[name].continuations) for name in order}

    firsts = {name: [samples[0] for samples in outputs[name].continuations] for name in order}
    firsts[REFERENCE] = [cut(prompt.reference, prompt.length) for prompt in prompts]
    reference = histograms(firsts[REFERENCE])
    notes = {name: list(outputs[name].notes) for name in tested}
    notes["task"] = _caveats(task, models, num_pieces, int(scored["loop"].drums_only.sum()))
    evaluation = Evaluation.of(
        command=command,
        commit=commit(),
        versions=describe(),
        config=dataclasses.asdict(config),
        prompts={"count": len(prompts), "pieces": num_pieces, "split_pieces": len(task.pieces), "hop": task.hop},
        systems={model.name: {"model": model.engine.config.name, "step": model.step} for model in models}
        | {name: {"candidates": folder.name} for name, folder in candidates.items()},
        scores=results.table(prompts, scored),
        differences=results.differences(prompts, scored),
        likelihood=likelihoods,
        syntax={name: dataclasses.asdict(outputs[name].faults) | {"empty": outputs[name].failures} for name in tested},
        notes={name: lines for name, lines in notes.items() if lines},
        decoding={name: outputs[name].speed for name in tested if outputs[name].speed},
        memorization=_memorization(task, {name: outputs[name].continuations for name in (*tested, "markov")}),
        descriptive_statistics={
            name: results.descriptive_statistics(prompts, firsts[name], reference) for name in (*order, REFERENCE)
        },
    )
    save_music(output / "midi", config.num_midi_examples, prompts, firsts)
    save_numbers(output, prompts, scored, evaluation)
    write_report(evaluation, output)
    return evaluation


def _check_names(models: Sequence[str], candidates: Mapping[str, pathlib.Path], output: pathlib.Path) -> None:
    """Raises UserError if a system's name is not unique or a candidate folder lies in `output`."""
    names = [*models, *candidates]
    reserved = (*BASELINES, REFERENCE)
    for name in names:
        if names.count(name) > 1 or name in reserved:
            raise UserError(f"the system name {name} is taken; give each as NAME=FOLDER, other than {', '.join(reserved)}")
    for name, folder in candidates.items():
        if output.resolve() in folder.resolve().parents:
            raise UserError(f"--candidates: {name} lies in --output, whose files are replaced; move it elsewhere")


def _load_runs(config: EvaluationConfig, workdirs: Mapping[str, pathlib.Path], shards_only: bool) -> dict[str, SavedModel]:
    """The checkpoint of each workdir. The first workdir may have none: then it only provides the shards."""
    runs = {}
    for index, (name, workdir) in enumerate(workdirs.items()):
        if shards_only and not index:
            continue
        if (workdir / FOLDER).is_dir():
            runs[name] = SavedModel.open(workdir, config.use_best_checkpoint)
        elif index:
            raise UserError(f"no checkpoint in {workdir}; train first: python -m launch.train --workdir={workdir}")
    return runs


def _caveats(task: Task, models: list[TrainedModel], num_pieces: int, num_drums_only: int) -> list[str]:
    """What limits the conclusions of this evaluation, one line each."""
    fingerprint = music_fingerprint(task.shards.folder)
    others = [f"`{model.name}`" for model in models if model.train_data_fingerprint != fingerprint]
    caveats = {
        f"all prompts come from {num_pieces} pieces, so there are few independent samples": num_pieces < FEW_PIECES,
        "the models were trained on these pieces": task.config.split == "train",
        f"{', '.join(others)}: trained on different pieces than these shards contain, or the training shards are gone; the "
        "prompts may be part of the training data": bool(others),
        f"{num_drums_only} reference continuation(s) contain only drums: their chroma and ssm are undefined, and their NMSI is "
        "the mean of groove and density": bool(num_drums_only),
    }
    return [line for line, applies in caveats.items() if applies]


def _memorization(task: Task, continuations: Mapping[str, Sequence[Sequence[Piece]]]) -> dict[str, dict[str, float | int]]:
    """Statistics of the longest note n-grams shared with the training split, by system and for the reference."""
    if not task.config.memorization:
        return {}
    prompts = task.prompts
    systems = {**continuations, REFERENCE: [[prompt.reference] for prompt in prompts]}
    pieces = [
        cut(piece, prompt.length)
        for by_prompt in systems.values()
        for prompt, samples in zip(prompts, by_prompt, strict=True)
        for piece in samples
    ]
    lengths = longest_shared_ngrams([task.tokenizer.decode(events) for events in task.training], pieces)
    counts = [sum(map(len, by_prompt)) for by_prompt in systems.values()]
    by_system = dict(zip(systems, np.split(lengths, np.cumsum(counts)[:-1]), strict=True))
    reference_p95 = np.percentile(by_system[REFERENCE], 95)
    return {
        name: {
            "median": float(np.median(each)),
            "p95": float(np.percentile(each, 95)),
            "max": int(each.max()),
            "above_reference_p95": float((each > reference_p95).mean()),
        }
        for name, each in by_system.items()
    }


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _callback(progress: Progress, name: str) -> ProgressCallback:
    """Adds a progress bar, and returns the callback that advances it."""
    task = progress.add_task(name, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)
