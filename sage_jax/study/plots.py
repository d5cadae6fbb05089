"""The figure of a study."""

import pathlib
from collections.abc import Iterator

import matplotlib.axes
import matplotlib.figure
import numpy as np

from sage_jax.evaluation.report import COLOURS
from sage_jax.files import replacing
from sage_jax.study.comparison import mean
from sage_jax.study.config import Variant
from sage_jax.study.results import StudyResult
from sage_jax.study.statistics import CrossedEstimate


def plot(result: StudyResult, path: pathlib.Path) -> None:
    """Plots bits per note against speed (or alone, without measured speeds), against merges, and learning curves."""
    timed = any(speed.notes_per_second is not None for speed in result.speeds.values())
    panels = [_plot_speeds if timed else _plot_bits]
    if "merges" in result.tables and sum(each.system.startswith("bpe") for each in result.tables["merges"].variants) > 1:
        panels.append(_plot_merges)
    if any(trial.curve for trial in result.trials):
        panels.append(_plot_curves)
    figure = matplotlib.figure.Figure(figsize=(6 * len(panels), 5), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        panel(result, axes)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _points(result: StudyResult) -> Iterator[tuple[Variant, CrossedEstimate]]:
    """Bits per note of the variants of the first tables. MMT is left out: it encodes less of a piece."""
    tables = [result.tables[name] for name in ("forms", "sharing") if name in result.tables]
    for variant in dict.fromkeys(variant for table in tables for variant in table.variants):
        bits = mean(result, variant, result.lr_search_corpus, "bits_per_note")
        if bits.seeds and result.families[variant.system] != "mmt-pooled":
            yield variant, bits


def _plot_speeds(result: StudyResult, axes: matplotlib.axes.Axes) -> None:
    """Each system by its name, with the interval of its bits."""
    colours = dict(zip(dict.fromkeys(result.families.values()), COLOURS * 3, strict=False))
    for variant, bits in _points(result):
        speed = result.speed_of(variant)
        if speed is not None and (notes := speed.notes_per_second):
            colour = colours[result.families[variant.system]]
            known = np.nan_to_num(bits.half_width)
            axes.errorbar(notes, bits.mean, yerr=known, fmt="o", markersize=4, color=colour, elinewidth=0.6, capsize=2)
            name = axes.annotate(variant.system, (notes, bits.mean + known), (0, 4), textcoords="offset points", color=colour)
            name.set(rotation=90, horizontalalignment="center", fontsize=7)
    axes.set_xscale("log")
    axes.margins(y=0.3)  # for the names
    axes.set_xlabel("notes per second, batch 1")
    axes.set_ylabel(f"bits per note, {result.lr_search_corpus}, with 95% intervals")


def _plot_bits(result: StudyResult, axes: matplotlib.axes.Axes) -> None:
    points = list(_points(result))[::-1]
    for place, (_, bits) in enumerate(points):
        axes.errorbar(bits.mean, place, xerr=bits.high - bits.mean, fmt="o", color=COLOURS[0], capsize=3)
    axes.set_yticks(range(len(points)), [variant.system for variant, _ in points])
    axes.set_xlabel(f"bits per note, {result.lr_search_corpus}, with 95% intervals over seeds")


def _plot_curves(result: StudyResult, axes: matplotlib.axes.Axes) -> None:
    """The validation loss by training step, of the first seed of each variant."""
    curves: dict[str, list[list[float]]] = {}
    for trial in result.trials:
        if trial.seed == 0 and trial.curve:
            curves[trial.variant.name.partition("/")[2]] = trial.curve
    for index, (name, curve) in enumerate(curves.items()):
        steps, losses = zip(*curve, strict=True)
        style = ("-", "--", ":")[index // len(COLOURS) % 3]
        axes.plot(steps, losses, color=COLOURS[index % len(COLOURS)], linestyle=style, label=name)
    axes.set_xlabel("training step")
    axes.set_ylabel("validation loss, nats per note")
    axes.legend(frameon=False, fontsize=7)


def _plot_merges(result: StudyResult, axes: matplotlib.axes.Axes) -> None:
    for colour, corpus in zip(COLOURS, result.corpora, strict=False):
        points = []
        for variant in dict.fromkeys(result.tables["merges"].variants):
            bits = mean(result, variant, corpus, "bits_per_note")
            if variant.corpus == corpus and bits.seeds:
                points.append((0 if variant.system == "remi" else int(variant.system.removeprefix("bpe")), bits.mean))
        if points:
            merges, bits = zip(*sorted(points), strict=True)
            axes.plot(merges, bits, "o-", color=colour, label=corpus)
    axes.set_xscale("symlog", linthresh=500)
    axes.set_xlabel("merges")
    axes.set_ylabel("bits per note")
    if axes.lines:
        axes.legend(frameon=False)
