"""The evaluation of a model with roles: bits per own note by lead, and what it writes beside floors."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage_jax.api import Model
from sage_jax.benchmark.ratios import Ratio
from sage_jax.benchmark.tasks import TaskSpeed, task_speeds
from sage_jax.corpus.shards import TokenShards
from sage_jax.errors import UserError
from sage_jax.evaluation.statistics import Estimate, interval
from sage_jax.evaluation.task_bits import ALONE, CASES, OTHER, task_bits
from sage_jax.evaluation.task_scores import METRICS, SYSTEMS, Case, make_cases, score_tasks
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.leads import AT_ONCE, BAR_AHEAD, SPAN, Lead
from sage_jax.tokenizers.role_events import RoleEvents


@dataclasses.dataclass(frozen=True)
class WrittenTask:
    """A task of which takes are scored: `bars` bars, of one track or of all."""

    name: str
    lead: Lead
    bars: int
    one_track: bool

    def cases(self, pieces: Sequence[Piece], tokenizer: RoleEvents) -> list[Case]:
        """One of each piece that has such bars."""
        return make_cases(pieces, tokenizer, self.lead, bars=self.bars, one_track=self.one_track, most=len(pieces))


SPEED_CASES, SPEED_ROWS = 8, 4  # takes of each task whose speed is measured, and how many at once
MARKOV_PIECES = 500  # of the training split, at most, that the Markov chain is fitted to
TASKS = (
    WrittenTask("accompany, a bar ahead", BAR_AHEAD, 8, True),
    WrittenTask("accompany, at once", AT_ONCE, 8, True),
    WrittenTask("infill one track, 4 bars", SPAN, 4, True),
    WrittenTask("infill all, 4 bars", SPAN, 4, False),
)


def evaluate_tasks(
    model: Model,
    shards: pathlib.Path,
    output: pathlib.Path,
    *,
    split: str,
    pieces: int,
    cases: int,
    command: str,
    turns: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Writes tasks.json and tasks.md to `output`: the bits of `pieces` pieces of a split, and the scores of `cases` takes.

    turns: of the tasks in which their speed is measured as well, with SPEED_CASES takes of each.

    Raises UserError for a model without roles and for shards of another vocabulary.
    """
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, RoleEvents):
        raise UserError("the model has no roles; take one that was trained with config.representation.name=roles")
    held_out, training = _pieces(model, shards, split, pieces), _pieces(model, shards, "train", MARKOV_PIECES)
    bits = task_bits(model.config, model.params, tokenizer, held_out, model.run.context)
    found: dict[str, Any] = {"command": command, "step": model.step, "bits": {}, "written": {}}
    for case in CASES:
        if case in bits:
            saved = bits[case].less_than(bits[ALONE]) if ALONE in bits and not case.startswith(SPAN.name) else None
            found["bits"][case] = {
                "bits_per_note": dataclasses.asdict(bits[case].per_note),
                "less_than_alone": dataclasses.asdict(saved) if saved else None,
                "notes": int(bits[case].notes.sum()),
                "by_attribute": (bits[case].bits.sum(axis=0) / bits[case].notes.sum()).tolist(),
            }
    available = {task.name: task.cases(held_out, tokenizer) for task in TASKS}
    for task, each in available.items():
        chosen = each[:cases]
        if len(chosen) > 1:
            scores = score_tasks(model.engine(min(8, len(chosen))).sibling(), chosen, training, model.sampling)
            found["written"][task] = {
                system: {metric: dataclasses.asdict(scores.estimate(system, metric)) for metric in METRICS}
                for system in SYSTEMS
            } | {"model - copy": {metric: dataclasses.asdict(scores.difference(metric, "model", "copy")) for metric in METRICS}}
    if turns:
        found["speed"] = {name: dataclasses.asdict(speed) for name, speed in _speeds(model, available, turns, say).items()}
    with replacing(output / "tasks.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    with replacing(output / "tasks.md") as temporary:
        temporary.write_text(report(found))


def _speeds(
    model: Model, cases: Mapping[str, Sequence[Case]], turns: int, say: Callable[[str], None]
) -> dict[str, TaskSpeed]:
    """The speed of the tasks on a few of their cases. The continuation writes what the last task does."""
    jobs = {name: [case.assignment for case in each[:SPEED_CASES]] for name, each in cases.items() if each}
    continued = jobs.get(TASKS[-1].name)
    if not continued:
        raise UserError("no piece of the split has bars enough to measure the speed; raise --pieces, or leave out --turns")
    return task_speeds(model.engine(SPEED_ROWS).sibling(), jobs, continued, model.sampling, turns, say)


def _pieces(model: Model, shards: pathlib.Path, split: str, most: int) -> list[Piece]:
    grid, tokenizer = model.run.tokenizer, model.tokenizer
    return [tokenizer.quantize(grid.decode(events)) for events in TokenShards(shards, split, grid, most)]


def report(found: dict[str, Any]) -> str:
    """The tables of `evaluate_tasks` as Markdown."""
    bits = [
        (case, _text(row["bits_per_note"], 2), _text(row["less_than_alone"], 2, True), f"{row['notes']:,}")
        for case, row in found["bits"].items()
    ]
    written = [
        (task, system, *(_text(row[metric], 3 if metric in ("note_f1", "in_harmony") else 1) for metric in METRICS))
        for task, systems in found["written"].items()
        for system, row in systems.items()
    ]
    speed = [
        (name, f"{row['notes_per_second']:,.0f}", _ratio(row["over_continuation"]), f"{row['notes']:,}")
        for name, row in found.get("speed", {}).items()
    ]
    return "\n".join(
        [
            f"`{found['command']}` at step {found['step']}.",
            "",
            markdown_table(("given", "bits per own note", "less than alone", "notes"), bits),
            "",
            f"{ALONE}: nothing is given. {OTHER}: what another piece has is given at once.",
            "",
            markdown_table(("task", "system", "note F1", "NMSI", "in harmony", "notes per bar"), written),
            "",
            *([markdown_table(("task", "own notes/s", "over continue (95% CI)", "notes"), speed), ""] if speed else []),
        ]
    )


def _ratio(values: dict[str, Any] | None) -> str:
    return "-" if values is None else str(Ratio(**values))


def _text(values: dict[str, Any] | None, digits: int, sign: bool = False) -> str:
    if values is None:
        return "-"
    found = Estimate(**values)
    return interval(found.mean, found.low, found.high, digits, sign)


