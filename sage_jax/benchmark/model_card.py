"""The measured sections of a model card: what the weights are, how fast they play here, and their evaluation."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from sage_jax.api import Model, load
from sage_jax.benchmark.memory import peak_megabytes
from sage_jax.environment import commit, describe
from sage_jax.evaluation.evaluate import REFERENCE, evaluate
from sage_jax.evaluation.results import Evaluation
from sage_jax.evaluation.statistics import interval
from sage_jax.evaluation.task import EvaluationConfig
from sage_jax.markdown import markdown_table
from sage_jax.weights import format
from sage_jax.weights.saved_model import find

NAME = "model"  # in the evaluation
BATCHES = (1, 4)  # takes at once whose speed is measured


def model_card(
    source: str | os.PathLike,
    workdir: pathlib.Path,
    prompt: str | os.PathLike,
    config: EvaluationConfig,
    output: pathlib.Path,
    command: str,
) -> list[str]:
    """Measures published weights; returns sections in Markdown, each with its heading.

    workdir: its shards have the split to evaluate on. prompt: a MIDI file for the measurement of speed. config: of the
    evaluation, with the sampling settings of the model instead of its own. output: as in `evaluate`. command: for the text.
    Raises UserError for whatever a user can mend.
    """
    started = time.perf_counter()
    model = load(source)
    loading = time.perf_counter() - started
    made = f"Commit {commit()}, " + ", ".join(f"{name} {value}" for name, value in describe().items()) + f": `{command}`."
    sections = [_weights(format.read(find(source)), find(source)), _speed(model, prompt, loading, made)]
    config = dataclasses.replace(config, sampling=model.sampling)
    evaluation = evaluate(config, {"data": workdir}, {}, output, command, published={NAME: source}, shards_only=True)
    return [*sections, *_scores(evaluation, made)]


def _weights(weights: format.Weights, folder: pathlib.Path) -> str:
    training, model, contents = weights.training, weights.run.model, weights.contents
    loss, kind = training["valid_nats_per_note"], "a moving average" if training["averaged"] else "as trained"
    rows = [
        (
            "architecture",
            f"`{model.name}`: {model.num_layers} layers x {model.embed_dim}, {model.num_heads} heads of {model.head_dim}",
        ),
        ("parameters", f"{sum(leaf.size for leaf in format.named(weights.params).values()):,}"),
        ("context", f"{weights.run.context:,} events"),
        ("weights", f"{kind}, of the {training['checkpoint']} step: {training['step']:,}"),
        ("validation", "not known" if loss is None else f"{loss:.3f} nats per note"),
        ("trained by the code at", str(training["commit"])),
        ("vocabulary", f"fingerprint `{weights.tokenizer.fingerprint}`"),
        ("training split", f"{len(contents.get('instruments', {}))} instruments, {len(contents.get('meters', []))} meters"),
        *((path.name, f"{path.stat().st_size:,} bytes") for path in sorted(folder.iterdir())),
    ]
    return "## The weights\n\n" + markdown_table(("", ""), rows)


def _speed(model: Model, prompt: str | os.PathLike, loading: float, made: str) -> str:
    speeds = []
    for takes in BATCHES:
        for seed in (0, 1):  # the first call compiles
            found = model.continue_(prompt, num_samples=takes, seed=seed)
        speeds.append(
            (f"notes per second, {takes} take{'s' * (takes > 1)}", f"{found.continuations.speed['notes_per_second']:,.0f}")
        )
    for _ in range(2):
        started = time.perf_counter()
        next(iter(model.stream(prompt)))
        first = time.perf_counter() - started
    rows = [
        ("loading the weights", f"{loading:.1f} s"),
        *speeds,
        ("first event of a stream, once compiled", f"{first * 1000:,.0f} ms"),
        ("peak memory", f"{peak_megabytes():,.0f} MB"),
    ]
    return f"## Speed\n\n{markdown_table(('', ''), rows)}\n\n{made}"


def _scores(evaluation: Evaluation, made: str) -> list[str]:
    prompts, config, scores = evaluation.prompts, evaluation.config, evaluation.scores
    sampling = ", ".join(f"{name} {value}" for name, value in config["sampling"].items())
    limits = "the prompt's instruments" if config["prompt_instruments"] else "any instrument, any pitch"
    nmsi = [(name, _interval(row["nmsi"])) for name, row in scores.items()]
    against = [
        (row["compared_with"], _interval(row["difference"], sign=True))
        for row in evaluation.differences
        if row["system"] == NAME
    ]
    likelihood = evaluation.likelihood[NAME]
    attributes = [(name, f"{value:.3f}") for name, value in likelihood["attributes"].items()]
    folders = [(name, _interval(row["bits_per_note"], digits=3)) for name, row in likelihood["folders"].items()]
    syntax = evaluation.syntax[NAME]
    faults = ", ".join(f"{name} {count}" for name, count in syntax.items())
    copies = [
        (name, f"{row['median']:.0f}", f"{row['p95']:.0f}", f"{row['max']}")
        for name, row in evaluation.memorization.items()
        if name in (NAME, REFERENCE, "markov")
    ]
    continuations = [
        "## Continuations",
        f"NMSI of {config['samples']} sample{'s' * (config['samples'] > 1)} for each of {prompts['count']} prompts of "
        f"{config['prompt_bars']} bars. They are "
        f"from {prompts['pieces']} of the {prompts['split_pieces']} pieces of the {config['split']} split. "
        f"Sampling: {sampling}; {limits}. [Evaluation](evaluation.md) explains the index and the baselines.",
        markdown_table(("system", "NMSI (95% interval)"), nmsi),
        markdown_table(("model minus", "paired difference in NMSI"), against),
        f"Faults in its events: {faults}.",
    ]
    if copies:
        continuations += [
            "The longest run of notes that is also in the training split, up to transposition:",
            markdown_table(("system", "median", "95th percentile", "longest"), copies),
        ]
    bits = [
        "## Likelihood",
        f"{_interval(likelihood['bits_per_note'], digits=3)} bits per note over {likelihood['notes']:,} notes of the "
        f"{config['split']} split.",
        markdown_table(("attribute", "bits per note"), attributes),
    ]
    if folders:
        bits.append(markdown_table(("kind of music", "bits per note (95% interval)"), folders))
    return ["\n\n".join([*bits, made]), "\n\n".join([*continuations, made])]


def _interval(estimate: Mapping[str, Any], **form: Any) -> str:
    return interval(estimate["mean"], estimate["low"], estimate["high"], **form)
