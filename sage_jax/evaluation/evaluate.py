"""From models, folders of MIDI files and a split nobody trained on to a report."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sage_jax.environment import commit, describe
from sage_jax.errors import UserError
from sage_jax.evaluation import results
from sage_jax.evaluation.candidates import read_candidates
from sage_jax.evaluation.floors import FLOORS
from sage_jax.evaluation.memorisation import longest_shared_runs
from sage_jax.evaluation.musicality import histograms
from sage_jax.evaluation.outputs import save_music, save_numbers, save_prompts
from sage_jax.evaluation.prompts import cut
from sage_jax.evaluation.report import write_report
from sage_jax.evaluation.task import EvaluationConfig, Task
from sage_jax.evaluation.trained import SavedRun, Show, TrainedModel, shards_of
from sage_jax.music.notes import Piece
from sage_jax.music.shards import music_fingerprint
from sage_jax.training.checkpoint import FOLDER, load_for_sampling

TRUTH = "truth"
FEW_PIECES = 20  # under which an interval is worth a warning


def evaluate(
    config: EvaluationConfig,
    workdirs: Mapping[str, pathlib.Path],
    candidates: Mapping[str, pathlib.Path],
    output: pathlib.Path,
    command: str,
    console: Console | None = None,
) -> dict[str, Any]:
    """Compares the newest checkpoint of each workdir, and folders of MIDI files, by name, on the prompts of the first's shards.

    Writes prompts/, midi/, evaluation.json, scores.json, report.md and plots to `output`, which also keeps what was decoded, so
    that a call that was stopped goes on. A workdir without checkpoints gives the prompts and the floors alone. Returns what
    is in evaluation.json. Raises UserError for whatever a user can mend.
    """
    console = console or Console()
    say = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    names = [*workdirs, *candidates]
    for name in names:
        if names.count(name) > 1 or name in (*FLOORS, TRUTH):
            raise UserError(f"two systems are called {name}; name each as NAME=FOLDER, and none {', '.join(FLOORS)} or {TRUTH}")
    for name, folder in candidates.items():
        if output.resolve() in folder.resolve().parents:
            raise UserError(f"--candidates: {name} lies in --output, whose files are replaced; move it out of there")
    runs = _runs(config, workdirs)
    first = next(iter(workdirs))
    task = Task.of(config, shards_of(workdirs[first], runs.get(first)), workdirs[first])
    models = [TrainedModel.of(name, workdirs[name], run, task) for name, run in runs.items()]
    names = [*(model.name for model in models), *candidates]

    prompts = task.prompts
    sources = len({prompt.name for prompt in prompts})
    say(f"{len(prompts)} prompts from {sources} of {len(task.pieces)} pieces of the {config.split} split, one every {task.hop} bars")

    # What is written behind the prompts: files first, of which something may be wrong; floors; models, which take their time.
    theirs = {
        name: read_candidates(folder, prompts, config.samples, config.candidates_hold_prompt)
        for name, folder in candidates.items()
    }
    for name, each in theirs.items():
        for line in each.notes:
            say(f"{name}: {line}")
    save_prompts(output / "prompts", prompts)
    written = theirs | task.floors()
    likelihoods = {}
    with _progress(console) as progress:
        for model in models:
            written[model.name] = model.write(task, output / "written", _shown(progress, f"{model.name}: continuations"))
            likelihoods[model.name] = model.foretell(task, _shown(progress, f"{model.name}: likelihood"))
    order = [*names, *FLOORS]
    scored = {name: results.score(prompts, written[name].continuations) for name in order}

    firsts = {name: [takes[0] for takes in written[name].continuations] for name in order}
    firsts[TRUTH] = [cut(prompt.reference, prompt.length) for prompt in prompts]
    truth = histograms(firsts[TRUTH])
    drums = int(scored["loop"].drums_only.sum())
    remarks = {name: list(written[name].notes) for name in names} | {"task": _doubts(task, models, sources, drums)}
    found = {
        "command": command,
        "commit": commit(),
        "versions": describe(),
        "config": dataclasses.asdict(config),
        "prompts": {"count": len(prompts), "pieces": sources, "split_pieces": len(task.pieces), "hop": task.hop},
        "systems": {model.name: {"model": model.generator.config.name, "step": model.step} for model in models}
        | {name: {"candidates": folder.name} for name, folder in candidates.items()},
        "scores": results.table(prompts, scored),
        "differences": results.differences(prompts, scored),
        "likelihood": likelihoods,
        "faults": {name: dataclasses.asdict(written[name].faults) | {"failures": written[name].failures} for name in names},
        "remarks": {name: lines for name, lines in remarks.items() if lines},
        "speed": {name: written[name].speed for name in names if written[name].speed},
        "memory": _memory(task, {name: written[name].continuations for name in (*names, "markov")}),
        "character": {name: results.character(prompts, firsts[name], truth) for name in (*order, TRUTH)},
    }
    found = results.plain(found)
    save_music(output / "midi", config.midi, prompts, firsts)
    save_numbers(output, prompts, scored, found)
    write_report(found, output)
    return found


def _runs(config: EvaluationConfig, workdirs: Mapping[str, pathlib.Path]) -> dict[str, SavedRun]:
    """The checkpoint of each workdir; the first may have none, and gives nothing but shards."""
    runs = {}
    for place, (name, workdir) in enumerate(workdirs.items()):
        if (workdir / FOLDER).is_dir():
            runs[name] = load_for_sampling(workdir, config.best)
        elif place:
            raise UserError(f"no checkpoint in {workdir}; train first: python -m launch.train --workdir={workdir}")
    return runs


def _doubts(task: Task, models: list[TrainedModel], sources: int, drums: int) -> list[str]:
    """What a reader should bear in mind about the task, a line each."""
    here = music_fingerprint(task.shards.folder)
    strangers = [f"`{model.name}`" for model in models if model.heard != here]
    doubts = {
        f"the prompts are from {sources} pieces alone: whatever their number, they tell of few": sources < FEW_PIECES,
        "the models were trained on these very pieces": task.config.split == "train",
        f"{', '.join(strangers)}: trained on other pieces than these shards have, or on shards that are gone; whether these prompts "
        "were among them is not known": bool(strangers),
        f"{drums} true continuation(s) have drums alone: no chroma and no ssm, and an index of the two other parts": bool(drums),
    }
    return [line for line, holds in doubts.items() if holds]


def _memory(task: Task, continuations: Mapping[str, Sequence[Sequence[Piece]]]) -> dict[str, Any]:
    """The longest run of notes that each continuation shares with the training split, and that the true ones share."""
    if not task.config.memory:
        return {}
    prompts = task.prompts
    groups = {**continuations, TRUTH: [[prompt.reference] for prompt in prompts]}
    pieces = [
        cut(piece, prompt.length) for takes in groups.values() for prompt, made in zip(prompts, takes, strict=True) for piece in made
    ]
    runs = longest_shared_runs([task.tokenizer.decode(events) for events in task.training], pieces)
    sizes = [sum(map(len, takes)) for takes in groups.values()]
    parts = dict(zip(groups, np.split(runs, np.cumsum(sizes)[:-1]), strict=True))
    high = np.percentile(parts[TRUTH], 95)
    return {
        name: {
            "median": float(np.median(part)),
            "p95": float(np.percentile(part, 95)),
            "max": int(part.max()),
            "above_human_p95": float((part > high).mean()),
        }
        for name, part in parts.items()
    }


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _shown(progress: Progress, name: str) -> Show:
    """What is told how much of a task is done."""
    task = progress.add_task(name, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)
