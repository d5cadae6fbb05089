"""From models, folders of MIDI files and a split nobody trained on to a report."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.environment import commit, describe
from sage_jax.errors import UserError
from sage_jax.evaluation import likelihood, results
from sage_jax.evaluation.candidates import read_candidates
from sage_jax.evaluation.continuation import Decoding, Written, write
from sage_jax.evaluation.floors import FLOORS, MarkovChain, later, loop, other
from sage_jax.evaluation.memorisation import longest_shared_runs
from sage_jax.evaluation.musicality import histograms
from sage_jax.evaluation.nmsi import LEAST_BARS, MAX_BARS
from sage_jax.evaluation.outputs import save_music, save_numbers, save_prompts
from sage_jax.evaluation.prompts import Prompt, choose_prompts, cut
from sage_jax.evaluation.report import write_report
from sage_jax.evaluation.statistics import ratio
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece
from sage_jax.music.representation import Representation, retold
from sage_jax.music.shards import VOCABULARY, TokenShards, music_fingerprint, read_json
from sage_jax.training.checkpoint import FOLDER, load_for_sampling
from sage_jax.training.config import RunConfig

TRUTH = "truth"
FEW_PIECES = 20  # under which an interval is worth a warning
SavedRun = tuple[Any, RunConfig, int, Representation]  # params, config, step, and what it tells pieces in


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How systems are compared. Raises UserError naming the field.

    split: of the token shards. prompts: how many, at most; prompt_bars: bars of each; max_bars: the most that are written
    behind one. samples: continuations of each prompt. batch_size: rows decoded at once. max_events: the most of a row. best:
    the checkpoint with the lowest validation loss instead of the newest. likelihood_pieces: how many pieces of the split are
    foretold, 0 for all. memory: whether to look for runs of notes from the training set. candidates_hold_prompt: whether
    the files of --candidates begin with their prompt. midi: prompts whose continuations by every system are written as MIDI.
    """

    split: str
    prompts: int
    prompt_bars: int
    max_bars: int
    samples: int
    batch_size: int
    max_events: int
    seed: int
    sampling: SamplingConfig
    best: bool
    likelihood_pieces: int
    memory: bool
    candidates_hold_prompt: bool
    midi: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationConfig":
        try:
            return cls(**{**values, "sampling": SamplingConfig(**values["sampling"])})
        except (TypeError, UserError) as error:
            raise UserError(f"config.{error}" if isinstance(error, UserError) else f"config: {error}") from error

    def __post_init__(self):
        lows = dict(prompts=2, prompt_bars=1, max_bars=LEAST_BARS, samples=1, batch_size=1, max_events=1)
        for field, low in {**lows, "seed": 0, "likelihood_pieces": 0, "midi": 0}.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
                raise UserError(f"{field} is {value!r}; give a whole number of at least {low}")
        if self.max_bars > MAX_BARS:
            raise UserError(f"max_bars is {self.max_bars}; NMSI is defined for at most {MAX_BARS}")


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model under test.

    context: the steps that it was trained on at once. most_steps: what it may draw for a continuation. heard: the fingerprint
    of the music that it was trained on, None where its shards are gone.
    """

    name: str
    generator: Generator
    context: int
    most_steps: int
    step: int
    heard: str | None


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
    shards, training, tokenizer = _shards(config, workdirs[first], _data(workdirs[first], runs.get(first)))
    models = [_model(config, name, workdirs[name], run, tokenizer) for name, run in runs.items()]
    names = [*(model.name for model in models), *candidates]

    # The task.
    pieces = [tokenizer.decode(events) for events in shards]
    prompts, hop = choose_prompts(shards.names, pieces, config.prompts, config.prompt_bars, config.max_bars)
    sources = len({prompt.name for prompt in prompts})
    say(f"{len(prompts)} prompts from {sources} of {len(pieces)} pieces of the {config.split} split, one every {hop} bars")

    # What is written behind the prompts: files first, of which something may be wrong; floors; models, which take their time.
    theirs = {
        name: read_candidates(folder, prompts, config.samples, config.candidates_hold_prompt)
        for name, folder in candidates.items()
    }
    for name, each in theirs.items():
        for line in each.notes:
            say(f"{name}: {line}")
    save_prompts(output / "prompts", prompts)
    chain = MarkovChain(tokenizer, list(training))
    floors = {"loop": [loop(prompts)], "other": [other(prompts)], "later": [later(prompts)]}
    floors["markov"] = [chain.continuations(prompts, config.seed + sample) for sample in range(config.samples)]
    written = theirs | {name: Written([list(takes) for takes in zip(*made, strict=True)]) for name, made in floors.items()}
    with _progress(console) as progress:
        for model in models:
            written[model.name] = _write(config, model, prompts, output, progress)
        order = [*names, *FLOORS]
        scored = {name: results.score(prompts, written[name].continuations) for name in order}
        likelihoods = {model.name: _likelihood(config, model, shards, tokenizer, progress) for model in models}

    firsts = {name: [takes[0] for takes in written[name].continuations] for name in order}
    firsts[TRUTH] = [cut(prompt.reference, prompt.length) for prompt in prompts]
    truth = histograms(firsts[TRUTH])
    drums = int(scored["loop"].drums_only.sum())
    remarks = {name: list(written[name].notes) for name in names} | {"task": _doubts(config, models, shards, sources, drums)}
    found = {
        "command": command,
        "commit": commit(),
        "versions": describe(),
        "config": dataclasses.asdict(config),
        "prompts": {"count": len(prompts), "pieces": sources, "split_pieces": len(pieces), "hop": hop},
        "systems": {model.name: {"model": model.generator.config.name, "step": model.step} for model in models}
        | {name: {"candidates": folder.name} for name, folder in candidates.items()},
        "scores": results.table(prompts, scored),
        "differences": results.differences(prompts, scored),
        "likelihood": likelihoods,
        "faults": {name: dataclasses.asdict(written[name].faults) | {"failures": written[name].failures} for name in names},
        "remarks": {name: lines for name, lines in remarks.items() if lines},
        "speed": {name: written[name].speed for name in names if written[name].speed},
        "memory": _memory(config, tokenizer, training, prompts, {name: written[name].continuations for name in (*names, "markov")}),
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


def _data(workdir: pathlib.Path, run: SavedRun | None) -> pathlib.Path:
    """Where the shards of a workdir are."""
    return pathlib.Path(run[1].data.shards) if run and run[1].data.shards else workdir / "data"


def _shards(
    config: EvaluationConfig, workdir: pathlib.Path, folder: pathlib.Path
) -> tuple[TokenShards, TokenShards, NoteEvents]:
    """The split to be evaluated on, the training split, and their tokenizer."""
    vocabulary = read_json(folder / VOCABULARY)
    if vocabulary is None:
        raise UserError(f"{folder} holds no token shards; run launch.preprocess with --workdir={workdir} first")
    tokenizer = NoteEvents.from_dict(vocabulary["tokenizer"])
    shards, training = (TokenShards(folder, split, tokenizer) for split in (config.split, "train"))
    for split, each in ((config.split, shards), ("train", training)):
        if not len(each):
            raise UserError(f"{folder} has no piece in its {split} split; add different pieces to the corpus")
    return shards, training, tokenizer


def _model(config: EvaluationConfig, name: str, workdir: pathlib.Path, run: SavedRun, tokenizer: NoteEvents) -> Model:
    params, saved, step, representation = run
    if saved.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(f"{workdir} was trained with another vocabulary than the shards of the first --workdir; evaluate it by itself")
    heard = music_fingerprint(_data(workdir, run))
    most_steps = saved.representation.steps(config.max_events)
    return Model(name, Generator(saved.model, params, representation), saved.context, most_steps, step, heard)


def _doubts(config: EvaluationConfig, models: list[Model], shards: TokenShards, sources: int, drums: int) -> list[str]:
    """What a reader should bear in mind about the task, a line each."""
    here = music_fingerprint(shards.folder)
    strangers = [f"`{model.name}`" for model in models if model.heard != here]
    doubts = {
        f"the prompts are from {sources} pieces alone: whatever their number, they tell of few": sources < FEW_PIECES,
        "the models were trained on these very pieces": config.split == "train",
        f"{', '.join(strangers)}: trained on other pieces than these shards have, or on shards that are gone; whether these prompts "
        "were among them is not known": bool(strangers),
        f"{drums} true continuation(s) have drums alone: no chroma and no ssm, and an index of the two other parts": bool(drums),
    }
    return [line for line, holds in doubts.items() if holds]


def _write(config: EvaluationConfig, model: Model, prompts: list[Prompt], output: pathlib.Path, progress: Progress) -> Written:
    task = progress.add_task(f"{model.name}: continuations", total=len(prompts) * config.samples)
    decoding = Decoding(config.samples, config.batch_size, model.most_steps, config.seed, config.sampling)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model.generator.params):
        digest.update(np.asarray(leaf).tobytes())
    told_in = model.generator.tokenizer.fingerprint
    identity = {"model": model.generator.config.name, "told_in": told_in, "step": model.step, "params": digest.hexdigest()[:16]}
    show = lambda done, total: progress.update(task, completed=done)
    return write(model.generator, prompts, decoding, model.context, identity, output / "written", show)


def _likelihood(config: EvaluationConfig, model: Model, shards: TokenShards, grid: NoteEvents, progress: Progress) -> dict[str, Any]:
    chosen = range(len(shards))[: config.likelihood_pieces or len(shards)]
    task = progress.add_task(f"{model.name}: likelihood", total=None)
    show = lambda done, total: progress.update(task, completed=done, total=total)
    found = likelihood.bits(
        model.generator.config,
        model.generator.params,
        model.generator.tokenizer,
        [retold(shards[piece], grid, model.generator.tokenizer) for piece in chosen],
        model.context,
        max(1, 1024 // model.context),
        show,
    )
    pieces, bits = np.arange(len(chosen)), found.bits.sum(axis=1)
    return {
        "bits_per_note": ratio(bits, found.notes, pieces),
        "bits_per_second": ratio(bits, found.seconds, pieces),
        "attributes": dict(zip(model.generator.tokenizer.attributes, found.bits.sum(axis=0) / found.notes.sum(), strict=True)),
        "opening": found.opening.sum() / found.notes.sum(),
        "notes": int(found.notes.sum()),
        "seconds": float(found.seconds.sum()),
        "context": model.context,
    }


def _memory(
    config: EvaluationConfig,
    tokenizer: NoteEvents,
    training: TokenShards,
    prompts: Sequence[Prompt],
    continuations: Mapping[str, Sequence[Sequence[Piece]]],
) -> dict[str, Any]:
    """The longest run of notes that each continuation shares with the training split, and that the true ones share."""
    if not config.memory:
        return {}
    groups = {**continuations, TRUTH: [[prompt.reference] for prompt in prompts]}
    pieces = [
        cut(piece, prompt.length) for takes in groups.values() for prompt, made in zip(prompts, takes, strict=True) for piece in made
    ]
    runs = longest_shared_runs([tokenizer.decode(events) for events in training], pieces)
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
