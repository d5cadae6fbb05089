"""How fast the trained models of the study decode: rows beside the reference, taking turns on the same cores."""

import os
import pathlib
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
from sage_jax.study.cells import Examiner
from sage_jax.study.config import Cell, Row, StudyConfig
from sage_jax.training.checkpoint import load_for_sampling

TOGETHER = 6  # systems that wait in memory for their turns


def measure_speeds(config: StudyConfig, examiner: Examiner, say: Callable[[str], None]) -> None:
    """Writes speed/ROW.json for each row that hasn't one, from the checkpoint of its first seed; longer training changes nothing."""
    reference = Row(config.speed["reference"], config.seek_on)
    rows = [row for row in config.rows() if not row.steps and row != reference]
    missing = [row for row in (reference, *rows) if not speed_file(examiner.workdir, row).exists()]
    groups = [missing[start : start + TOGETHER] for start in range(0, len(missing), TOGETHER)]
    for group in groups:
        say("speed: " + ", ".join(row.name for row in group))
        _measure(config, examiner, list(dict.fromkeys((reference, *group))))


def speed_file(workdir: pathlib.Path, row: Row) -> pathlib.Path:
    return workdir / "speed" / f"{row.name}.json"


def _measure(config: StudyConfig, examiner: Examiner, rows: list[Row]) -> None:
    speed, by_name, told = config.speed, {row.name: row for row in rows}, {}
    for row in rows:
        _, run, _, representation = load_for_sampling(_folder(examiner, row))
        pieces = examiner.task(row.corpus)[0]
        steps = sum(len(retold(events, pieces.tokenizer, representation)) for events in pieces.shards)
        context, events = (run.representation.steps(count) for count in (speed["context"] // NUM_ATTRIBUTES, speed["events"]))
        cell = {"batch": speed["batch"], "context_events": context, "events": events}
        told[row.name] = cell, steps / sum(len(piece.notes) for piece in pieces.pieces)

    def job_of(name: str) -> Job:
        job = {"workdir": str(_folder(examiner, by_name[name]).resolve()), "dtype": "float32", "seed": 0, "prefill": True}
        return [sys.executable, "-m", "sage_jax.benchmark.decode"], {**job, **told[name][0], "threads": len(os.sched_getaffinity(0))}

    probe = Worker([sys.executable, "-m", "sage_jax.benchmark.roofline"], {"dtype": "float32"})
    try:
        lines = take_turns(list(by_name), job_of, speed["rounds"], probe, {"commit": commit()}, Console(quiet=True))
    finally:
        probe.close()
    lines = {line["system"]: line | {"cell": told[line["system"]][0]} for line in lines if "failed" not in line}
    reference = lines.get(rows[0].name)
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
    return examiner.workdir / "cells" / Cell(row, 0, 0.0, (row.corpus,)).name
