"""Decoding speed of the study's variants, interleaved with the reference on the same cores.

Training does not change speed, so these models have random weights and no trial's checkpoint is needed.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from sage_jax.benchmark.interleaved import Job, Worker, run_interleaved
from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.metrics import decoding_metrics, loop_ratio
from sage_jax.benchmark.ratios import CONTROL, Ratio
from sage_jax.config import RunConfig
from sage_jax.environment import commit
from sage_jax.errors import UserError
from sage_jax.evaluation.results import to_jsonable
from sage_jax.files import write_json
from sage_jax.study.config import Trial, Variant
from sage_jax.study.results import VariantSpeed
from sage_jax.study.trials import Evaluator, trial_folder
from sage_jax.tokenizers.config import retokenize
from sage_jax.tokenizers.note_events import NUM_ATTRIBUTES
from sage_jax.training.loop import load_tokenizer

GROUP_SIZE = 6  # systems that are in memory at the same time


def measure_speeds(evaluator: Evaluator, say: Callable[[str], None]) -> None:
    """Writes speed/VARIANT.json for each variant without one, measured with the reference of the same overrides."""
    config = evaluator.config
    for table in dict.fromkeys(variant.table for variant in config.variants()):
        reference = Variant(config.reference, config.lr_search_corpus, table=table)
        others = [variant for variant in config.variants() if variant.table == table and variant != reference]
        missing = [each for each in (reference, *others) if not speed_file(evaluator.workdir, each).exists()]
        for start in range(0, len(missing), GROUP_SIZE):
            group = missing[start : start + GROUP_SIZE]
            say("speed: " + ", ".join(variant.name for variant in group))
            _measure(evaluator, list(dict.fromkeys((reference, *group))), say)


def speed_file(workdir: pathlib.Path, variant: Variant) -> pathlib.Path:
    return workdir / "speed" / f"{variant.name}.json"


def _measure(evaluator: Evaluator, variants: list[Variant], say: Callable[[str], None]) -> None:
    """Measures a group of variants; the first one is the reference. Files that exist stay as they are."""
    reference, jobs, steps_per_note = variants[0].name, {}, {}
    for variant in variants:
        try:
            jobs[variant.name], steps_per_note[variant.name] = _decoding_job(evaluator, variant)
        except UserError as error:  # for example more merges than the corpus gives
            say(f"{variant.name}: speed not measured: {error}")
    if reference not in jobs:
        return
    measured = _run(evaluator, [*jobs, reference + CONTROL], jobs, say)
    if not {reference, reference + CONTROL} <= measured.keys():
        return  # no speed is reported without the reference and its control
    control = loop_ratio(measured[reference], measured[reference + CONTROL])
    for variant in variants:
        path = speed_file(evaluator.workdir, variant)
        if variant.name in measured and not path.exists():
            speedup = loop_ratio(measured[reference], measured[variant.name])
            speed = _variant_speed(measured[variant.name], steps_per_note[variant.name], speedup, control)
            write_json(path, to_jsonable(speed.to_json()), indent=1)


def _decoding_job(evaluator: Evaluator, variant: Variant) -> tuple[dict[str, Any], float]:
    """The job of a variant's decoder, and the steps per note of its tokenizer on its corpus."""
    benchmark, sections = evaluator.config.speed_benchmark, evaluator.sections(variant)
    run = RunConfig.from_dict(sections)
    folder = trial_folder(evaluator.workdir, Trial(variant, 0, 0.0, (variant.corpus,)))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(run, evaluator.shards(variant.corpus), folder)
    task, _ = evaluator.task(variant.corpus)
    steps = sum(len(retokenize(events, task.tokenizer, tokenizer)) for events in task.shards)
    notes = sum(len(piece.notes) for piece in task.pieces)
    job = {
        "sections": to_jsonable(sections),
        "merges_in": str(folder.resolve()),
        "batch": benchmark["batch"],
        "context_events": run.representation.steps(benchmark["context"] // NUM_ATTRIBUTES),
        "events": run.representation.steps(benchmark["events"]),
        "dtype": evaluator.config.run["model"]["dtype"],
        "seed": 0,
        "threads": len(os.sched_getaffinity(0)),
        "prefill": True,
    }
    return job, steps / notes


def _run(
    evaluator: Evaluator, systems: list[str], jobs: dict[str, dict[str, Any]], say: Callable[[str], None]
) -> dict[str, Measurement]:
    """The measurements without an error, by system. The cell of each is its job's sizes."""

    def job_of(system: str) -> Job:
        return [sys.executable, "-m", "sage_jax.benchmark.decode"], jobs[system.removesuffix(CONTROL)]

    rounds, dtype = evaluator.config.speed_benchmark["rounds"], evaluator.config.run["model"]["dtype"]
    probe = Worker([sys.executable, "-m", "sage_jax.benchmark.roofline"], {"dtype": dtype})
    try:
        measurements = run_interleaved(systems, job_of, rounds, probe, {}, commit(), Console(quiet=True))
    finally:
        probe.close()
    measured = {}
    for measurement in measurements:
        if measurement.ok:
            job = jobs[measurement.system.removesuffix(CONTROL)]
            cell = {name: job[name] for name in ("batch", "context_events", "events")}
            measured[measurement.system] = dataclasses.replace(measurement, cell=cell)
        else:
            say(f"{measurement.system}: speed not measured: {measurement.error}")
    return measured


def _variant_speed(
    measurement: Measurement, steps_per_note: float, speedup: Ratio | None, control: Ratio | None
) -> VariantSpeed:
    metrics = decoding_metrics(measurement)
    # Events of NoteEvents are notes, except for a few changes of meter and tempo. A stream has several steps per note.
    steps = 1.0 if measurement.metadata["tokens_per_note"] > 1 else steps_per_note
    return VariantSpeed(
        steps_per_note=steps_per_note,
        cache_bytes=measurement.metadata["cache_bytes"],
        notes_per_second=metrics["notes_per_second"] / steps,
        milliseconds={name: metrics[name] * steps for name in ("p50", "p95", "p99") if name in metrics},
        speedup=speedup and speedup.over(steps),
        control=control,
        events_drawn=sum(measurement.events_drawn),
        notes_drawn=sum(count or 0 for count in measurement.notes_drawn),
        commit=measurement.commit,
    )
