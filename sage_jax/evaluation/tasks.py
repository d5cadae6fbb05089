"""The evaluation of a model with roles: bits per own note by lead, and what it writes beside floors."""

import dataclasses
import json
import pathlib
from typing import Any

from sage_jax.api import Model
from sage_jax.corpus.shards import TokenShards
from sage_jax.errors import UserError
from sage_jax.evaluation.statistics import Estimate, interval
from sage_jax.evaluation.task_bits import ALONE, CASES, OTHER, task_bits
from sage_jax.evaluation.task_scores import METRICS, SYSTEMS, make_cases, score_tasks
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


MARKOV_PIECES = 500  # of the training split, at most, that the Markov chain is fitted to
TASKS = (
    WrittenTask("accompany, a bar ahead", BAR_AHEAD, 8, True),
    WrittenTask("accompany, at once", AT_ONCE, 8, True),
    WrittenTask("infill one track, 4 bars", SPAN, 4, True),
    WrittenTask("infill all, 4 bars", SPAN, 4, False),
)


def evaluate_tasks(
    model: Model, shards: pathlib.Path, output: pathlib.Path, *, split: str, pieces: int, cases: int, command: str
) -> None:
    """Writes tasks.json and tasks.md to `output`: the bits of `pieces` pieces of a split, and the scores of `cases` takes.

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
    for task in TASKS:
        chosen = make_cases(held_out, tokenizer, task.lead, bars=task.bars, one_track=task.one_track, most=cases)
        if len(chosen) > 1:
            scores = score_tasks(model.engine(min(8, len(chosen))).sibling(), chosen, training, model.sampling)
            found["written"][task.name] = {
                system: {metric: dataclasses.asdict(scores.estimate(system, metric)) for metric in METRICS}
                for system in SYSTEMS
            } | {"model - copy": {metric: dataclasses.asdict(scores.difference(metric, "model", "copy")) for metric in METRICS}}
    with replacing(output / "tasks.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    with replacing(output / "tasks.md") as temporary:
        temporary.write_text(report(found))


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
        ]
    )


def _text(values: dict[str, Any] | None, digits: int, sign: bool = False) -> str:
    if values is None:
        return "-"
    found = Estimate(**values)
    return interval(found.mean, found.low, found.high, digits, sign)


