"""Sampling settings compared by measurement: the scores of a model's continuations under each of them."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation import results
from sage_jax.evaluation.baselines import BASELINES
from sage_jax.evaluation.generation import ProgressCallback
from sage_jax.evaluation.model_under_test import TrainedModel
from sage_jax.evaluation.musicality import HISTOGRAMS, histograms
from sage_jax.evaluation.nmsi import PARTS
from sage_jax.evaluation.prompts import cut
from sage_jax.evaluation.statistics import interval
from sage_jax.evaluation.task import EvaluationConfig, Task
from sage_jax.markdown import markdown_table
from sage_jax.weights.saved_model import SavedModel

TRUNCATIONS = ("top_p", "min_p")


def settings_of(values: Mapping[str, Sequence[float]]) -> list[SamplingConfig]:
    """Each temperature with each top_p, and with each min_p instead. Raises UserError naming the field."""
    return [
        dataclasses.replace(SamplingConfig(), temperature=temperature, **{truncation: value})
        for temperature, truncation in itertools.product(values["temperature"], TRUNCATIONS)
        for value in values[truncation]
    ]


def sampling_grid(
    source: str | os.PathLike,
    workdir: pathlib.Path,
    config: EvaluationConfig,
    settings: Sequence[SamplingConfig],
    output: pathlib.Path,
    progress: ProgressCallback = lambda done, total: None,
) -> list[dict[str, Any]]:
    """A row for each of `settings`, the best NMSI first, and then for each of BASELINES.

    source: as in SavedModel.open. workdir: its shards have the split of `config`. output: keeps generated events, so that a
    stopped call resumes. A row has 'system', 'nmsi' (an Estimate), PARTS (means), 'overlap' (of each of HISTOGRAMS with the
    reference continuations, and their mean), and 'notes' (per continuation). Raises UserError for the test split: settings that
    are chosen on it would make its scores too good.
    """
    if config.split == "test":
        raise UserError("config.split is test, on which nothing may be chosen; give valid")
    task = Task.of(config, workdir / "data", workdir)
    model = TrainedModel.of("model", SavedModel.open(source), task)
    reference = histograms([cut(prompt.reference, prompt.length) for prompt in task.prompts])
    continuations = {}
    for number, sampling in enumerate(settings, 1):
        tried = dataclasses.replace(task, config=dataclasses.replace(config, sampling=sampling))
        continuations[_name(sampling)] = model.write(tried, output / "written").continuations
        progress(number, len(settings))
    baselines = {name: written.continuations for name, written in task.baselines().items()}
    rows = [_row(name, each, task, reference) for name, each in {**continuations, **baselines}.items()]
    return sorted(rows, key=lambda row: (row["system"] in BASELINES, -row["nmsi"].mean))


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    header = ("sampling", "NMSI (95% interval)", *PARTS, *(f"overlap, {name}" for name in HISTOGRAMS), "mean overlap", "notes")
    return markdown_table(header, [list(_cells(row)) for row in rows])


def _row(name: str, continuations: Sequence[Sequence[Any]], task: Task, reference: Mapping[str, Any]) -> dict[str, Any]:
    scored = results.score(task.prompts, continuations)
    firsts = [samples[0] for samples in continuations]
    described = results.descriptive_statistics(task.prompts, firsts, reference)
    overlaps = described["overlap"]
    means = {part: results.estimate_of(scored, part, task.prompts).mean for part in PARTS}
    nmsi = results.estimate_of(scored, "nmsi", task.prompts)
    overlaps = {**overlaps, "mean": sum(overlaps.values()) / len(overlaps)}
    return {"system": name, "nmsi": nmsi, **means, "overlap": overlaps, "notes": described["notes"]}


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    nmsi = row["nmsi"]
    yield row["system"]
    yield interval(nmsi.mean, nmsi.low, nmsi.high)
    yield from (f"{row[part]:.3f}" for part in PARTS)
    yield from (f"{value:.3f}" for value in row["overlap"].values())
    yield f"{row['notes']:.0f}"


def _name(sampling: SamplingConfig) -> str:
    truncation = f"min_p {sampling.min_p:g}" if sampling.min_p else f"top_p {sampling.top_p:g}"
    return f"temperature {sampling.temperature:g}, {truncation}"
