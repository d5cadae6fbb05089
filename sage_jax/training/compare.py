"""Runs side by side: their curves in one picture, and a table of how far each came and of what tells it from the others."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table
from sage_jax.rendering.piano_roll import PALETTE
from sage_jax.training.config import RunConfig, flat
from sage_jax.training.metrics import read_metrics
from sage_jax.training.recorder import METRICS_FILE
from sage_jax.training.starts import RUN_FILE, read_run

AXES = ("steps", "notes")
SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = ("run", "commit", "parameters", "best valid loss", "at step", "last training loss", "at step", "notes/s")
LINE_STYLES = ("-", "--", ":", "-.")  # where there are more runs than colours
Lines = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What the folder of a run tells.

    parameters: how many. commits: those that it was started with, in their order. config: 'section.field' -> value and
    'device' -> that of the newest start. train, valid: lines of metrics.jsonl.
    """

    name: str
    parameters: int
    commits: tuple[str, ...]
    config: Mapping[str, Any]
    train: Lines
    valid: Lines

    @classmethod
    def read(cls, name: str, folder: pathlib.Path) -> "TrainedRun":
        """The run in `folder`. Raises UserError where there is none, or none that has taken a step."""
        path, about = folder / METRICS_FILE, read_run(folder)
        for name_of_file, is_there in ((METRICS_FILE, path.is_file()), (RUN_FILE, about is not None)):
            if not is_there:
                raise UserError(f"{folder} is no run: it has no {name_of_file}; give a --workdir of launch.train")
        try:
            start, train, valid = (read_metrics(path, kind) for kind in ("start", "train", "valid"))
            for line in (*train, *valid):
                float(line["loss"]), int(line["step"])
            for line in train:
                float(line["notes_per_step"])
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path} can't be read ({reason}); give a --workdir of launch.train") from error
        if not start or not train:
            raise UserError(f"{folder} has no step in its {METRICS_FILE} yet; wait for one, or leave this run out")
        config = _told(about["config"]) | {"device": start[-1]["device"]}
        commits = tuple(dict.fromkeys(each["commit"] for each in about["starts"]))
        return cls(name, start[-1]["params"], commits, config, train, valid)

    def places(self, lines: Lines, axis: str) -> np.ndarray:
        """Where `lines` lie on an axis of AXES: by their steps, or by the notes that the run had learned from until then."""
        steps = np.array([line["step"] for line in lines], float)
        if axis == "steps":
            return steps
        each = [line["notes_per_step"] for line in self.train]
        known = np.array([0, *(line["step"] for line in self.train)], float)
        return np.interp(steps, known, np.append(0, np.cumsum(np.array(each) * np.diff(known))))


def compare(folders: Mapping[str, pathlib.Path], picture: str | os.PathLike, axis: str = "steps") -> str:
    """Draws the runs in `folders` (by name) to `picture`, and returns their table.

    axis: of AXES. Raises UserError for a folder that is no run, and for a picture that can't be written.
    """
    if not folders:
        raise UserError("there is no run to compare; give the folders of some, such as runs/a runs/b")
    if pathlib.Path(picture).suffix not in SUFFIXES:
        raise UserError(f"{picture} is no name of a picture; let it end in one of {', '.join(SUFFIXES)}")
    runs = [TrainedRun.read(name, folder) for name, folder in folders.items()]
    draw_runs(runs, picture, axis)
    return table(runs)


def draw_runs(runs: Sequence[TrainedRun], path: str | os.PathLike, axis: str = "steps") -> None:
    """Draws training loss, validation loss and notes per second, each run in one colour. Raises UserError as `compare`.

    Behind a smoothed curve stands what it was made of, faint; the axis of notes per second ends where the smoothed ones do.
    """
    figure = matplotlib.figure.Figure(figsize=(15, 5.5), layout="constrained")
    training, validation, speed = figure.subplots(1, 3)
    fastest = 0.0
    for number, run in enumerate(runs):
        ink = {"color": PALETTE[number % len(PALETTE)], "ls": LINE_STYLES[number // len(PALETTE) % len(LINE_STYLES)]}
        at = run.places(run.train, axis)
        losses, rates = (np.array([line[field] for line in run.train]) for field in ("loss", "notes_per_second"))
        usual = smoothed(rates, np.median)  # the first step behind a pause may seem to take no time at all
        fastest = max(fastest, usual.max())
        for axes, values, bold in ((training, losses, smoothed(losses)), (speed, rates, usual)):
            axes.plot(at, values, lw=0.8, alpha=0.25, **ink)
            axes.plot(at, bold, lw=1.6, label=run.name if axes is training else None, **ink)
        validation.plot(run.places(run.valid, axis), [line["loss"] for line in run.valid], marker="o", ms=3.5, lw=1.6, **ink)
    _finish(training, "training loss, nats per note (bold: running mean)", axis)
    _finish(validation, "validation loss, nats per note", axis)
    _finish(speed, "notes per second (bold: running median)", axis)
    speed.set_ylim(0, 1.3 * fastest)
    figure.legend(loc="outside lower center", ncols=min(len(runs), 5), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None} if temporary.suffix == ".png" else None)


def smoothed(values: np.ndarray, by: Callable[[np.ndarray], float] = np.mean) -> np.ndarray:
    """The mean, or what else `by` makes, of the values around each one: a twentieth of all, 5 at least and 101 at most."""
    reach = min(max(2, len(values) // 40), 50)
    return np.array([by(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))])


def table(runs: Sequence[TrainedRun]) -> str:
    """In Markdown how each run fared, and the fields in which they differ: columns of the same table, or one of their own.

    Of its own where they are more than the runs are, a row for each field.
    """
    names = sorted({name for run in runs for name in run.config})
    differing = {
        name: [_shown(run.config.get(name)) for run in runs]
        for name in names
        if any(run.config.get(name) != runs[0].config.get(name) for run in runs)
    }
    fared = {run.name: _fared(run) for run in runs}
    apart = len(differing) > len(runs)
    told = [] if apart else list(differing)
    rows = [(*cells, *(differing[name][row] for name in told)) for row, cells in enumerate(fared.values())]
    parts = [_aligned((*COLUMNS, *told), rows)]
    if apart:
        parts.append(_aligned(("field", *fared), [(name, *values) for name, values in differing.items()]))
    return "\n\n".join(parts)


def _fared(run: TrainedRun) -> tuple[str, ...]:
    best = min(run.valid, key=lambda line: line["loss"], default=None)
    last = run.train[-1]
    return (
        run.name,
        ", ".join(run.commits),
        f"{run.parameters:,}",
        *((f"{best['loss']:.4f}", f"{best['step']:,}") if best else ("-", "-")),
        f"{last['loss']:.4f}",
        f"{last['step']:,}",
        f"{np.median([line['notes_per_second'] for line in run.train]):,.0f}",
    )


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    header, *rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *rows)]
    return markdown_table(header, rows)


def _told(sections: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run, of all `sections` of its config; with the fields that came later, where this version can read it."""
    with contextlib.suppress(UserError):
        sections = RunConfig.from_dict(sections).to_dict()
    decisive = {field.name for field in dataclasses.fields(RunConfig)}
    return flat({name: section for name, section in sections.items() if name in decisive})


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value) or "''"


def _finish(axes: Axes, title: str, axis: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(axis)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
