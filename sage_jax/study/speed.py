"""How fast the models of the study decode: rows beside the reference, taking turns on the same cores.

What a model has learned changes nothing in its speed, so that these are untrained: nothing need be kept of those that are.
"""

import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from sage_jax.benchmark.figures import loop_ratio, summarise
from sage_jax.benchmark.ratios import CONTROL, MIN_TURNS, Ratio
from sage_jax.benchmark.turns import Job, Worker, take_turns
from sage_jax.environment import commit
from sage_jax.errors import UserError
from sage_jax.evaluation.results import plain
from sage_jax.files import write_json
from sage_jax.music.events import NUM_ATTRIBUTES
from sage_jax.music.representation import retold
from sage_jax.study.cells import Examiner, cell_folder
from sage_jax.study.config import Cell, Row
from sage_jax.training.config import RunConfig
from sage_jax.training.loop import told_in

TOGETHER = 6  # systems that wait in memory for their turns
EXACT = ("steps_per_note", "cache_bytes")  # of a row's speed, what is counted and not timed


def proven(speed: Mapping[str, Any]) -> dict[str, Any]:
    """Of what was measured of a row's speed, all that its method proves.

    Times need MIN_TURNS turns beside an A/A pair, in which each run drew the events that it counts; without them what is EXACT
    remains.
    """
    whole = speed.get("turns", 0) >= MIN_TURNS and "control" in speed
    return dict(speed) if whole else {name: speed[name] for name in EXACT if name in speed}


def measure_speeds(examiner: Examiner, say: Callable[[str], None]) -> None:
    """Writes speed/ROW.json for each row that hasn't one, beside its variant's reference."""
    config = examiner.config
    for variant in dict.fromkeys(row.variant for row in config.rows()):
        reference = Row(config.speed["reference"], config.seek_on, variant=variant)
        rows = [row for row in config.rows() if row.variant == variant and row != reference]
        missing = [row for row in (reference, *rows) if not speed_file(examiner.workdir, row).exists()]
        for start in range(0, len(missing), TOGETHER):
            group = missing[start : start + TOGETHER]
            say("speed: " + ", ".join(row.name for row in group))
            _measure(examiner, list(dict.fromkeys((reference, *group))), say)


def speed_file(workdir: pathlib.Path, row: Row) -> pathlib.Path:
    return workdir / "speed" / f"{row.name}.json"


def _measure(examiner: Examiner, rows: list[Row], say: Callable[[str], None]) -> None:
    """The first of `rows` is the reference, which was measured before where its file is there."""
    speed, dtype, jobs = examiner.config.speed, examiner.config.run["model"]["dtype"], {}
    for row in rows:
        sections = examiner.sections(row)
        run, folder = RunConfig.from_dict(sections), cell_folder(examiner.workdir, Cell(row, 0, 0.0, (row.corpus,)))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            representation = told_in(run, examiner.shards(row.corpus), folder)
        except UserError as error:  # such as more merges than there are
            say(f"{row.name}: its speed is not measured: {error}")
            continue
        task, _ = examiner.task(row.corpus)
        steps = sum(len(retold(events, task.tokenizer, representation)) for events in task.shards)
        in_events = speed["context"] // NUM_ATTRIBUTES, speed["events"]
        context, events = (run.representation.steps(count) for count in in_events)
        cell = {"batch": speed["batch"], "context_events": context, "events": events}
        job = {"sections": plain(sections), "merges_in": str(folder.resolve()), **cell}
        jobs[row.name] = job, steps / sum(len(piece.notes) for piece in task.pieces)

    def job_of(name: str) -> Job:
        job = {"dtype": dtype, "seed": 0, "threads": len(os.sched_getaffinity(0)), "prefill": True}
        return [sys.executable, "-m", "sage_jax.benchmark.decode"], {**job, **jobs[name.removesuffix(CONTROL)][0]}

    probe = Worker([sys.executable, "-m", "sage_jax.benchmark.roofline"], {"dtype": dtype})
    try:
        systems = [*jobs, rows[0].name + CONTROL]  # the reference twice
        lines = take_turns(systems, job_of, speed["rounds"], probe, {"commit": commit()}, Console(quiet=True))
    finally:
        probe.close()
    for line in lines:
        if "failed" in line:
            say(f"{line['system']}: its speed could not be measured: {line['failed']}")
    cell_of = lambda line: jobs[line["system"].removesuffix(CONTROL)][0]
    lines = {line["system"]: line | {"cell": cell_of(line)} for line in lines if "failed" not in line}
    if not {rows[0].name, rows[0].name + CONTROL} <= lines.keys():
        return  # the others stand beside the reference and its control, or nowhere
    reference = lines[rows[0].name]
    control = loop_ratio(reference, lines[rows[0].name + CONTROL])
    for row in (row for row in rows if row.name in lines):
        name, line = row.name, lines[row.name]
        figures, steps_per_note = summarise(line), jobs[name][1]
        times = loop_ratio(reference, line)
        # A note of NoteEvents is one step, the changes of meter and tempo apart; of a stream it is several.
        notes = 1.0 if line["about"]["tokens_per_note"] > 1 else steps_per_note
        found = {
            "steps_per_note": steps_per_note,
            "notes_per_second": figures["notes_per_second"] / notes,
            "milliseconds": {name: figures[name] * notes for name in ("p50", "p95", "p99") if name in figures},
            # Of notes_per_second, the rate of the compiled loop: value, low and high. Those that turns are too few for are absent.
            **({"times_reference": _spread(times.over(notes))} if times else {}),
            **({"control": _spread(control)} if control else {}),
            "turns": len(line["seconds"]),
            "events_drawn": sum(line["events_drawn"]),
            "notes_drawn": sum(line["notes_drawn"]),
            "cache_bytes": line["about"]["cache_bytes"],
            "commit": line["commit"],
        }
        if not speed_file(examiner.workdir, row).exists():
            write_json(speed_file(examiner.workdir, row), plain(found), indent=1)


def _spread(ratio: Ratio) -> list[float]:
    return [ratio.value, ratio.low, ratio.high]
