"""The picture of a study, from its JSON alone."""

import pathlib
from collections.abc import Iterator

import matplotlib.axes
import matplotlib.figure

from sage_jax.evaluation.report import COLOURS
from sage_jax.files import replacing
from sage_jax.study.config import Row
from sage_jax.study.results import Findings, Mean


def draw(findings: Findings, path: pathlib.Path) -> None:
    """What there is of: bits per note against speed, or, where no speed was measured, beside each other; and against merges."""
    timed = any("notes_per_second" in speed for speed in findings.found["speeds"].values())
    drawn = [_draw_speeds if timed else _draw_bits]
    if "merges" in findings.found["tables"]:
        drawn.append(_draw_merges)
    figure = matplotlib.figure.Figure(figsize=(6 * len(drawn), 5), layout="constrained")
    for one, axes in zip(drawn, figure.subplots(1, len(drawn), squeeze=False)[0], strict=True):
        one(findings, axes)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _points(findings: Findings) -> Iterator[tuple[Row, Mean]]:
    """The bits per note of each row of the first tables; rows that tell less of a piece are not among them."""
    found = findings.found
    rows = [row for table in ("forms", "sharing") if table in found["tables"] for row in findings.rows(table)]
    for row in dict.fromkeys(rows):
        bits = findings.mean(row, found["seek_on"], "bits")
        if bits.seeds and found["families"][row.system] != "mmt-pooled":
            yield row, bits


def _draw_speeds(findings: Findings, axes: matplotlib.axes.Axes) -> None:
    families: dict[str, list[tuple[float, float]]] = {}
    for row, bits in _points(findings):
        if rate := findings.speed(row).get("notes_per_second"):
            point = rate, bits.mean
            families.setdefault(findings.found["families"][row.system], []).append(point)
    for colour, (family, points) in zip(COLOURS * 3, families.items(), strict=False):
        axes.scatter(*zip(*points, strict=True), color=colour, s=18, label=family)
    axes.set_xscale("log")
    axes.set_xlabel("notes per second, batch 1")
    axes.set_ylabel(f"bits per note, {findings.found['seek_on']}")
    if families:
        axes.legend(frameon=False)


def _draw_bits(findings: Findings, axes: matplotlib.axes.Axes) -> None:
    points = list(_points(findings))[::-1]
    for place, (_, bits) in enumerate(points):
        axes.errorbar(bits.mean, place, xerr=bits.high - bits.mean, fmt="o", color=COLOURS[0], capsize=3)
    axes.set_yticks(range(len(points)), [row.system for row, _ in points])
    axes.set_xlabel(f"bits per note, {findings.found['seek_on']}, with 95% intervals over seeds")


def _draw_merges(findings: Findings, axes: matplotlib.axes.Axes) -> None:
    for colour, corpus in zip(COLOURS, findings.found["corpora"], strict=False):
        points = []
        for row in dict.fromkeys(findings.rows("merges")):
            bits = findings.mean(row, corpus, "bits")
            if row.corpus == corpus and bits.seeds:
                points.append((int(row.system.removeprefix("bpe") if row.system != "remi" else 0), bits.mean))
        if points:
            merges, bits = zip(*sorted(points), strict=True)
            axes.plot(merges, bits, "o-", color=colour, label=corpus)
    axes.set_xscale("symlog", linthresh=500)
    axes.set_xlabel("merges")
    axes.set_ylabel("bits per note")
    if axes.lines:
        axes.legend(frameon=False)
