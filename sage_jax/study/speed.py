"""How fast the trained models of the study decode: rows beside the reference, taking turns on the same cores."""

import os
import pathlib
import shutil
import sys
from collections.abc import Callable

from rich.console import Console

from sage_jax.benchmark.report import summarise
from sage_jax.benchmark.suite import Job, Worker, take_turns
from sage_jax.environment import commit
from sage_jax.evaluation.results import plain
from sage_jax.files import write_json
from sage_jax.music.events import NUM_ATTRIBUTES
from sage_jax.music.representation import retold
from sage_jax.study.cells import Examiner, cell_folder
from sage_jax.study.config import Cell, Row, StudyConfig
from sage_jax.training.checkpoint import FOLDER, load_for_sampling

TOGETHER = 6  # systems that wait in memory for their turns


def measure_speeds(config: StudyConfig, examiner: Examiner, say: Callable[[str], None]) -> None:
    """Writes speed/ROW.json for each row that hasn't one, from the checkpoint of its first seed, beside its variant's reference.

    Checkpoints go when they are no longer needed.
    """
    for variant in dict.fromkeys(row.variant for row in config.rows()):
        reference = Row(config.speed["reference"], config.seek_on, variant=variant)
        rows = [row for row in config.rows() if row.variant == variant and row != reference]
        there = [row for row in (reference, *rows) if (_folder(examiner, row) / FOLDER).is_dir()]
        missing = [row for row in there if not speed_file(examiner.workdir, row).exists()]
        if missing and reference not in there:
            say(f"{len(missing)} speeds are not measured: {reference.name}, which they are compared to, has no checkpoint")
            continue
        for start in range(0, len(missing), TOGETHER):
            group = missing[start : start + TOGETHER]
            say("speed: " + ", ".join(row.name for row in group))
            _measure(config, examiner, list(dict.fromkeys((reference, *group))), say)
        for row in rows if not config.keep_checkpoints else ():  # the reference stays: what comes later is told beside it
            if speed_file(examiner.workdir, row).exists():
                shutil.rmtree(_folder(examiner, row) / FOLDER, ignore_errors=True)


def speed_file(workdir: pathlib.Path, row: Row) -> pathlib.Path:
    return workdir / "speed" / f"{row.name}.json"


def _measure(config: StudyConfig, examiner: Examiner, rows: list[Row], say: Callable[[str], None]) -> None:
    """The first of `rows` is the reference, which was measured before where its file is there."""
    speed, dtype, by_name, told = config.speed, config.run["model"]["dtype"], {row.name: row for row in rows}, {}
    for row in rows:
        _, run, _, representation = load_for_sampling(_folder(examiner, row))
        task, _ = examiner.task(row.corpus)
        steps = sum(len(retold(events, task.tokenizer, representation)) for events in task.shards)
        in_events = speed["context"] // NUM_ATTRIBUTES, speed["events"]
        context, events = (run.representation.steps(count) for count in in_events)
        cell = {"batch": speed["batch"], "context_events": context, "events": events}
        told[row.name] = cell, steps / sum(len(piece.notes) for piece in task.pieces)

    def job_of(name: str) -> Job:
        threads = len(os.sched_getaffinity(0))
        job = {"workdir": str(_folder(examiner, by_name[name]).resolve()), "dtype": dtype, "seed": 0, "threads": threads}
        return [sys.executable, "-m", "sage_jax.benchmark.decode"], {**job, **told[name][0], "prefill": True}

    probe = Worker([sys.executable, "-m", "sage_jax.benchmark.roofline"], {"dtype": dtype})
    try:
        lines = take_turns(list(by_name), job_of, speed["rounds"], probe, {"commit": commit()}, Console(quiet=True))
    finally:
        probe.close()
    for line in lines:
        if "failed" in line:
            say(f"{line['system']}: its speed could not be measured: {line['failed']}")
    lines = {line["system"]: line | {"cell": told[line["system"]][0]} for line in lines if "failed" not in line}
    if rows[0].name not in lines:
        return  # the others are told beside it, or not at all
    reference = lines[rows[0].name]
    for name, line in lines.items():
        figures, steps_per_note = summarise(line, reference), told[name][1]
        # A note of NoteEvents is one step, the changes of meter and tempo apart; of a stream it is several.
        notes = 1.0 if line["about"]["tokens_per_note"] > 1 else steps_per_note
        found = {
            "steps_per_note": steps_per_note,
            "notes_per_second": figures["notes_per_second"] / notes,
            "milliseconds": [figures[quantile] * notes for quantile in ("p50", "p95", "p99")],
            "times_reference": [ratio / notes for ratio in figures.get("speedup", (1.0, 1.0, 1.0))],
            "memory_share": figures["memory_share"],
            "arithmetic_share": figures["arithmetic_share"],
            "turns": len(line["note_seconds"]),
            "notes": figures["notes"],
            "cache_bytes": line["about"]["cache_bytes"],
            "commit": line["commit"],
        }
        if not speed_file(examiner.workdir, by_name[name]).exists():
            write_json(speed_file(examiner.workdir, by_name[name]), plain(found), indent=1)


def _folder(examiner: Examiner, row: Row) -> pathlib.Path:
    return cell_folder(examiner.workdir, Cell(row, 0, 0.0, (row.corpus,)))
