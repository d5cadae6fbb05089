"""An evaluation in Markdown and in pictures."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from sage_jax.evaluation.floors import FLOORS
from sage_jax.evaluation.nmsi import PARTS
from sage_jax.evaluation.results import INDEX_DIFFERENCES
from sage_jax.evaluation.statistics import interval
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table

Found = Mapping[str, Any]
INK, FLOOR_INK = "#2f6fc4", "#8a919e"
COLOURS = ("#2f6fc4", "#e5791a", "#2a9d57", "#d03a4b", "#8658c4", "#0f9fb4", "#b8860b", "#dd559c")
SAID = {
    "loop": "the prompt again and again",
    "other": "the true continuation of a prompt from another piece",
    "later": "the bars behind the true continuation",
    "markov": "a Markov chain of order 2 over note events",
    "truth": "the true continuation",
}


def write_report(found: Found, output: pathlib.Path) -> None:
    """Writes report.md and its pictures to `output`, from what `evaluate` found (plain numbers, as in evaluation.json)."""
    _plot_scores(found, output / "scores.png")
    _plot_histograms(found, output / "histograms.png")
    parts = [_preface(found), _scores(found), _differences(found)]
    if found["likelihood"]:
        _plot_attributes(found, output / "attributes.png")
        parts.append(_likelihood(found))
    parts += [_faults(found), _memory(found), _character(found), _decoding(found)]
    with replacing(output / "report.md") as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n")


def _preface(found: Found) -> str:
    prompts, config = found["prompts"], found["config"]
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    systems = "; ".join(
        f"`{name}`: " + (f"{about['model']}, step {about['step']:,}" if "model" in about else "MIDI files of another system")
        for name, about in found["systems"].items()
    )
    return f"""# Evaluation

Written by `{found["command"]}`; not typed. Commit {found["commit"]}. {versions}.

{systems or "No system under test: the floors alone."}

The task: {config["prompt_bars"]} bars of a piece of the {config["split"]} split are given, and up to {config["max_bars"]} bars behind them are to
be written, {config["samples"]} times. {prompts["count"]} prompts come from {prompts["pieces"]} of its {prompts["split_pieces"]} pieces, by rule,
one every {prompts["hop"]} bars at the closest. Intervals are of 95% confidence, from a bootstrap over pieces, each with all of its prompts."""


def _scores(found: Found) -> str:
    header = ("system", "NMSI", "relative", *PARTS, "NMSI-max", "samples")
    rows = []
    for name, row in found["scores"].items():
        parts = [f"{row[part]['mean']:.3f}" if row[part]["mean"] is not None else "-" for part in PARTS]
        relative = _interval(row["relative"], digits=2)
        rows.append((_shown(name), _interval(row["nmsi"]), relative, *parts, _interval(row["nmsi_max"]), str(row["samples"])))
    floors = "; ".join(f"*{name}*: {SAID[name]}" for name in FLOORS)
    remarks = [f"- {'the task' if name == 'task' else f'`{name}`'}: {line}" for name, lines in found["remarks"].items() for line in lines]
    return "\n\n".join(
        [
            "## Continuations",
            "![NMSI with intervals, against the floors](scores.png)",
            markdown_table(header, rows),
            f"Floors need no model: {floors}. NMSI is 100 for a copy of the true continuation; `relative` is 0 for *other* and 1 for "
            "*later*, so that a score above 1 is nearer to the true bars than the piece's own next bars are. Parts lie in "
            "[0, 1] (sage_jax/evaluation/nmsi.py). NMSI-max forgives every change of order.",
            *(["\n".join(remarks)] if remarks else []),
        ]
    )


def _differences(found: Found) -> str:
    if not found["differences"]:
        return ""
    header = ("system", "than", "difference in NMSI", "resolved here", *(f"prompts for {points:g} point{'s' * (points != 1)}" for points in INDEX_DIFFERENCES))
    rows = [
        (
            f"**{row['system']}**",
            row["than"],
            _interval(row["difference"], sign=True),
            "-" if row["resolved"] is None else f"{row['resolved']:.2f}",
            *("-" if count is None else f"{count:,.0f}" for count in row["needed"].values()),
        )
        for row in found["differences"]
    ]
    return "\n\n".join(
        [
            "## Differences and power",
            markdown_table(header, rows),
            "Differences are paired: prompt by prompt. `resolved here` is the least difference that as many prompts from as many pieces "
            "show with a power of 80% at a level of 5%; the last columns are how many prompts it takes to show a difference of so "
            "many points, with as many to a piece as here: so many more pieces. A difference smaller than what is resolved says "
            "nothing, either way.",
        ]
    )


def _likelihood(found: Found) -> str:
    attributes = _attributes(found)
    header = ("system", "bits per note", *attributes, "bits per second", "notes", "hours")
    rows = [
        (
            f"**{name}**",
            _interval(row["bits_per_note"], digits=3),
            *(f"{row['attributes'][each]:.3f}" if each in row["attributes"] else "-" for each in attributes),
            _interval(row["bits_per_second"], digits=1),
            f"{row['notes']:,}",
            f"{row['seconds'] / 3600:.2f}",
        )
        for name, row in found["likelihood"].items()
    ]
    openings = ", ".join(f"{row['opening']:.3f} for `{name}`" for name, row in found["likelihood"].items())
    contexts = ", ".join(f"{row['context']} steps for `{name}`" for name, row in found["likelihood"].items())
    return "\n\n".join(
        [
            "## Likelihood",
            "![Bits per note by attribute](attributes.png)",
            markdown_table(header, rows),
            f"Of whole pieces of the {found['config']['split']} split, in windows of the trained context ({contexts}) : each step behind half of it at "
            "least, where the piece has that much. Every token counts, those of meters, tempos, rests and the end too; every note counts "
            f"once. Of the bits per note, the first meter and tempo of a piece, which in training are given, cost {openings}.",
        ]
    )


def _faults(found: Found) -> str:
    if not found["faults"]:
        return ""
    header = ("system", "notes", "tokens", "invalid tokens", "time reversals", "duplicate notes", "unplayable notes", "failures")
    rows = [
        (
            f"**{name}**",
            *(f"{row[field]:,}" if row["tokens"] or field == "notes" else "-" for field in ("notes", "tokens", "invalid", "reversals")),
            *(f"{row[field]:,}" for field in ("duplicates", "unplayable", "failures")),
        )
        for name, row in found["faults"].items()
    ]
    return "\n\n".join(
        [
            "## Syntax",
            markdown_table(header, rows),
            "Tokens can be wrong only where there are tokens: MIDI files have none. A duplicate begins with an equal note of its "
            "instrument and pitch; unplayable is a pitch under 12 or over 119, or a drum that General MIDI has no sound for. A failure is "
            "a continuation without notes, or a file that is missing or broken: it counts as silence.",
        ]
    )


def _memory(found: Found) -> str:
    if not found["memory"]:
        return ""
    header = ("system", "median", "95th percentile", "longest", "above the truth's 95th percentile")
    rows = [
        (_shown(name), f"{row['median']:.0f}", f"{row['p95']:.0f}", str(row["max"]), f"{row['above_human_p95']:.1%}")
        for name, row in found["memory"].items()
    ]
    return "\n\n".join(
        [
            "## Memory",
            markdown_table(header, rows),
            "The longest run of notes in each continuation that a training piece has too, in any key. The truth is human "
            "music that the training split does not hold: what it shares is what music shares. 256 stands for 256 or more.",
        ]
    )


def _character(found: Found) -> str:
    measures = {
        "notes": "{:.0f}", "pitch_class_entropy": "{:.3f}", "scale_consistency": "{:.3f}", "groove_consistency": "{:.3f}",
        "stripe_cs": "{:.1f}", "stripe_ssmd": "{:.1f}",
    }  # fmt: skip
    overlaps = list(next(iter(found["character"].values()))["overlap"])
    header = ("system", *(measure.replace("_", " ") for measure in measures), *(f"{name} overlap" for name in overlaps))
    rows = [
        (
            _shown(name),
            *("-" if row[measure] is None else form.format(row[measure]) for measure, form in measures.items()),
            *(f"{row['overlap'][each]:.3f}" for each in overlaps),
        )
        for name, row in found["character"].items()
    ]
    return "\n\n".join(
        [
            "## Character",
            "![Histograms of pitch class, duration, velocity and instrument](histograms.png)",
            markdown_table(header, rows),
            "Of one continuation of each prompt. Entropy, scale and groove consistency as MusPy defines them: closer to the truth is better. "
            "StrIPE's chroma similarity and self-similarity distance, literally. The overlap of a histogram with the true one is 1 - "
            "their total variation distance.",
        ]
    )


def _decoding(found: Found) -> str:
    lines = [
        f"- `{name}`: {speed['events_per_second']:,.0f} events per second in batches of {speed['batch_size']}, {speed['rows_in_use']:.0%} of whose "
        f"rows were in use; {speed['decode_seconds']:,.0f} s of decoding, {speed['prefill_seconds']:,.0f} s of reading prompts and windows"
        for name, speed in found["speed"].items()
    ]
    return "## Decoding\n\n" + "\n".join(lines) if lines else ""


def _plot_scores(found: Found, path: pathlib.Path) -> None:
    names = list(found["scores"])[::-1]
    figure = matplotlib.figure.Figure(figsize=(7.5, 1.0 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        value = found["scores"][name]["nmsi"]
        low, high = (value["mean"] if value[end] is None else value[end] for end in ("low", "high"))
        bar = [[value["mean"] - low], [high - value["mean"]]]
        ink = FLOOR_INK if name in FLOORS else INK
        axes.errorbar([value["mean"]], [place], xerr=bar, fmt="o", color=ink, capsize=3)
        axes.annotate(f"{value['mean']:.1f}", (value["mean"], place), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=ink)
    axes.set_yticks(range(len(names)), [f"{name} (floor)" if name in FLOORS else name for name in names])
    axes.set(xlabel="NMSI, 95% confidence over pieces", ylim=(-0.6, len(names) - 0.2))
    axes.grid(axis="x", alpha=0.3)
    _write(figure, path)


def _attributes(found: Found) -> list[str]:
    """Those of any model, in the order in which they are met; models of other representations have others."""
    return list(dict.fromkeys(name for row in found["likelihood"].values() for name in row["attributes"]))


def _plot_attributes(found: Found, path: pathlib.Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(7.5, 1.2 + 0.5 * len(found["likelihood"])), layout="constrained")
    axes = figure.subplots()
    attributes, named = _attributes(found), set()
    for place, row in enumerate(found["likelihood"].values()):
        left = 0.0
        for name, width in row["attributes"].items():
            colour = COLOURS[attributes.index(name) % len(COLOURS)]
            axes.barh(place, width, left=left, color=colour, label=None if name in named else name)
            named.add(name)
            left += width
    axes.set_yticks(range(len(found["likelihood"])), list(found["likelihood"]))
    axes.invert_yaxis()
    axes.set(xlabel="bits per note")
    axes.legend(ncols=min(len(attributes), 6), fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.5 / len(found["likelihood"])))
    _write(figure, path)


def _plot_histograms(found: Found, path: pathlib.Path) -> None:
    shown = [name for name in found["character"] if name not in FLOORS]
    figure = matplotlib.figure.Figure(figsize=(11, 6), layout="constrained")
    names = list(found["character"]["truth"]["histograms"])
    for axes, name in zip(figure.subplots(2, 2).ravel(), names, strict=True):
        for place, system in enumerate(shown):
            counts = np.array(found["character"][system]["histograms"][name])
            width = 0.8 / len(shown)
            ink = FLOOR_INK if system == "truth" else COLOURS[place % len(COLOURS)]
            axes.bar(np.arange(len(counts)) + (place - (len(shown) - 1) / 2) * width, counts, width, color=ink, label=system)
        labels = _bins(name, len(counts))
        axes.set_xticks(range(len(counts)), labels, fontsize=7, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set(title=name, ylabel="share of notes")
        axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    _write(figure, path)


FAMILIES = (
    "piano", "chromatic", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe", "lead", "pad", "effects",
    "ethnic", "percussive", "sounds", "drums",
)  # fmt: skip


def _bins(name: str, count: int) -> Sequence[str]:
    return {
        "pitch class": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
        "duration": ("to 1/4", "1/2", "3/4", "1", "3/2", "2", "3", "4", "more"),
        "velocity": [str(8 * place) for place in range(count)],
        "instrument": FAMILIES,
    }[name]


def _write(figure: matplotlib.figure.Figure, path: pathlib.Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _shown(name: str) -> str:
    return f"*{name}*" if name in SAID else f"**{name}**"


def _interval(value: Mapping[str, Any], digits: int = 1, sign: bool = False) -> str:
    return interval(value["mean"], value["low"], value["high"], digits, sign)
