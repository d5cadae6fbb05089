"""Comparison of training runs: their learning curves in one figure, and a table of their results and config differences."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from sage_jax.config import RunConfig, flatten
from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table
from sage_jax.rendering.piano_roll import PALETTE
from sage_jax.training.metrics import METRICS_FILE, read_metrics
from sage_jax.training.run_manifest import RUN_FILE, read_manifest

AXES = ("steps", "notes")
SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = ("run", "commit", "parameters", "best valid loss", "at step", "last training loss", "at step", "notes/s")
LINE_STYLES = ("-", "--", ":", "-.")  # to distinguish runs of the same colour
Lines = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The results of a run, read from its folder.

    num_params: number of parameters. commits: the commits of its starts, in order. config: 'section.field' -> value,
    and 'device' of the newest start. train, valid: lines of metrics.jsonl.
    """

    name: str
    num_params: int
    commits: tuple[str, ...]
    config: Mapping[str, Any]
    train: Lines
    valid: Lines

    @classmethod
    def read(cls, name: str, folder: pathlib.Path) -> "TrainedRun":
        """The run in `folder`. Raises UserError if there is none, or it has not logged a step yet."""
        path, manifest = folder / METRICS_FILE, read_manifest(folder)
        if manifest is None or not path.is_file():
            missing = RUN_FILE if path.is_file() else METRICS_FILE
            raise UserError(f"{folder} is not a run: it has no {missing}; give a --workdir of launch.train")
        try:
            start, train, valid = (read_metrics(path, kind) for kind in ("start", "train", "valid"))
            _check_numbers((*train, *valid), "loss", "step")
            _check_numbers(train, "notes_per_step")
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path} can't be read ({reason}); give a --workdir of launch.train") from error
        if not start or not train:
            raise UserError(f"{folder} has no step in its {METRICS_FILE} yet; wait for one, or leave this run out")
        config = _flat_config(manifest["config"]) | {"device": start[-1]["device"]}
        commits = tuple(dict.fromkeys(each["commit"] for each in manifest["starts"]))
        return cls(name, start[-1]["params"], commits, config, train, valid)

    def positions(self, lines: Lines, axis: str) -> np.ndarray:
        """The x coordinates of `lines`: their steps, or for axis 'notes' the number of notes trained on until then."""
        steps = np.array([line["step"] for line in lines], float)
        if axis == "steps":
            return steps
        notes_per_step = np.array([line["notes_per_step"] for line in self.train])
        logged_steps = np.array([0, *(line["step"] for line in self.train)], float)
        return np.interp(steps, logged_steps, np.append(0, np.cumsum(notes_per_step * np.diff(logged_steps))))


def compare(folders: Mapping[str, pathlib.Path], picture: str | os.PathLike, axis: str = "steps") -> str:
    """Draws the runs in `folders` (by name) to the file `picture`, and returns their table.

    axis: one of AXES. Raises UserError for a folder that is not a run, or a picture that can't be written.
    """
    if not folders:
        raise UserError("there is no run to compare; give the folders of runs, such as runs/a runs/b")
    if pathlib.Path(picture).suffix not in SUFFIXES:
        raise UserError(f"{picture} is not the name of a picture; it must end in one of {', '.join(SUFFIXES)}")
    runs = [TrainedRun.read(name, folder) for name, folder in folders.items()]
    draw_runs(runs, picture, axis)
    return comparison_table(runs)


def draw_runs(runs: Sequence[TrainedRun], path: str | os.PathLike, axis: str = "steps") -> None:
    """Draws training loss, validation loss and notes per second, each run in one colour. Raises UserError as `compare`.

    Raw values are faint, smoothed ones bold. The axis of notes per second is scaled to the smoothed values.
    """
    figure = matplotlib.figure.Figure(figsize=(15, 5.5), layout="constrained")
    training, validation, speed = figure.subplots(1, 3)
    fastest = 0.0
    for number, run in enumerate(runs):
        ink = {"color": PALETTE[number % len(PALETTE)], "ls": LINE_STYLES[number // len(PALETTE) % len(LINE_STYLES)]}
        x = run.positions(run.train, axis)
        losses, rates = (np.array([line[field] for line in run.train]) for field in ("loss", "notes_per_second"))
        typical_rates = smoothed(rates, np.median)  # a median, because the first step after a pause can have an extreme rate
        fastest = max(fastest, typical_rates.max())
        for axes, values, bold in ((training, losses, smoothed(losses)), (speed, rates, typical_rates)):
            axes.plot(x, values, lw=0.8, alpha=0.25, **ink)
            axes.plot(x, bold, lw=1.6, label=run.name if axes is training else None, **ink)
        valid_losses = [line["loss"] for line in run.valid]
        validation.plot(run.positions(run.valid, axis), valid_losses, marker="o", ms=3.5, lw=1.6, **ink)
    _finish(training, "training loss, nats per note (bold: running mean)", axis)
    _finish(validation, "validation loss, nats per note", axis)
    _finish(speed, "notes per second (bold: running median)", axis)
    speed.set_ylim(0, 1.3 * fastest)
    figure.legend(loc="outside lower center", ncols=min(len(runs), 5), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None} if temporary.suffix == ".png" else None)


def smoothed(values: np.ndarray, average: Callable[[np.ndarray], Any] = np.mean) -> np.ndarray:
    """Running `average` of `values`, over a centred window of a twentieth of them, at least 5 and at most 101."""
    reach = min(max(2, len(values) // 40), 50)
    return np.array([average(values[max(0, index - reach) : index + reach + 1]) for index in range(len(values))])


def comparison_table(runs: Sequence[TrainedRun]) -> str:
    """A Markdown table of the results of each run and of the config fields that differ between runs.

    If there are more differing fields than runs, they get a second table, with one row per field.
    """
    names = sorted({name for run in runs for name in run.config})
    differing = {
        name: [_format(run.config.get(name)) for run in runs]
        for name in names
        if any(run.config.get(name) != runs[0].config.get(name) for run in runs)
    }
    results = {run.name: _result_cells(run) for run in runs}
    second_table = len(differing) > len(runs)
    extra = [] if second_table else list(differing)
    rows = [(*cells, *(differing[name][row] for name in extra)) for row, cells in enumerate(results.values())]
    parts = [_aligned((*COLUMNS, *extra), rows)]
    if second_table:
        parts.append(_aligned(("field", *results), [(name, *values) for name, values in differing.items()]))
    return "\n\n".join(parts)


def _result_cells(run: TrainedRun) -> tuple[str, ...]:
    best = min(run.valid, key=lambda line: line["loss"], default=None)
    last = run.train[-1]
    return (
        run.name,
        ", ".join(run.commits),
        f"{run.num_params:,}",
        *((f"{best['loss']:.4f}", f"{best['step']:,}") if best else ("-", "-")),
        f"{last['loss']:.4f}",
        f"{last['step']:,}",
        f"{np.median([line['notes_per_second'] for line in run.train]):,.0f}",
    )


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    header, *rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    return markdown_table(header, rows)


def _check_numbers(lines: Lines, *fields: str) -> None:
    """Raises KeyError, TypeError or ValueError unless each line has a number in each of `fields`."""
    for line in lines:
        for field in fields:
            float(line[field])


def _flat_config(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config that RunConfig has, with defaults for missing ones if this version can read the config."""
    with contextlib.suppress(UserError):
        sections = RunConfig.from_dict(sections).to_dict()
    known = {field.name for field in dataclasses.fields(RunConfig)}
    return flatten({name: section for name, section in sections.items() if name in known})


def _format(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value) or "''"


def _finish(axes: Axes, title: str, axis: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(axis)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
