"""RESULTS.md, from the study's JSON alone."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.benchmark.ratios import MIN_TURNS
from sage_jax.evaluation.floors import FLOORS
from sage_jax.evaluation.report import SAID
from sage_jax.evaluation.statistics import interval
from sage_jax.markdown import markdown_table, write_part
from sage_jax.study.claims import claims
from sage_jax.study.config import Row
from sage_jax.study.picture import draw
from sage_jax.study.results import Findings, Mean

TITLE = "# Results of the study\n"
TITLES = {
    "forms": "What a step is: tokenization and output form",
    "sharing": "Key-value sharing, at equal width and depth",
    "equal_parameters": "Key-value sharing, at equal parameters",
    "merges": "Byte-pair encoding",
    "other_music": "Other music than a model was trained on",
    "longer": "The same for longer",
}
COLUMNS = (
    "system", "trained on", "asked about", "seeds", "parameters", "bits per note", "than reference", "NMSI", "than reference",
    "relative", "notes/s", "times reference", "cache, MB", "steps a note",
)  # fmt: skip


def write_results(found: Mapping[str, Any], report: pathlib.Path, picture: pathlib.Path) -> None:
    """Writes `picture`, and into `report` the part that the title names, from what `collect` returns.

    Parts of other titles, which studies of other sizes have written, stay as they are.
    """
    findings = Findings(found)
    draw(findings, picture)
    link = os.path.relpath(picture, report.parent)
    parts = [_preface(found), _claims(findings), _limits(found), _set_up(found)]
    parts.append(f"![Bits per note of the systems]({link})")
    names = [*(name for name in TITLES if name in found["tables"]), *(name for name in found["tables"] if name not in TITLES)]
    parts += [_table(findings, name) for name in names if findings.rows(name)]
    parts.append(_floors(found))
    write_part(report, TITLE, "\n\n".join(part for part in parts if part))


def _preface(found: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in (found["versions"] or {}).items())
    done = len(found["cells"])
    timed = sum("notes_per_second" in speed for speed in found["speeds"].values())
    whole = "All" if done == found["wanted"] else f"**Not finished:** {done} of"
    return f"""## The study `{found["title"]}`

Written by `{found["command"]}` from its JSON; not typed. Commit {found["commit"]}. {versions}.
{whole} {found["wanted"]} models are trained and evaluated; the speed of {timed or "none"} is measured in enough turns."""


def _claims(findings: Findings) -> str:
    rows = [(claim.claim, claim.measured, claim.verdict, _link(findings, claim.table)) for claim in claims(findings)]
    table = markdown_table(("claim", "measured here", "verdict", "table"), rows)
    return f"""### The paper's claims

The paper (arXiv 2510.00395) compares on music, code and weights that nobody else has, and its authors withdrew its results for
re-analysis. A verdict follows from the interval alone: *holds* or *fails* where all of it lies on one side, else *undecided*.
A verdict on speed also needs {MIN_TURNS} turns, and an A/A pair whose interval holds 1.

{table}"""


def _link(findings: Findings, table: str) -> str:
    return f"[{table}](#{_anchor(findings, table)})" if table in findings.found["tables"] else "-"


def _anchor(findings: Findings, table: str) -> str:
    return f"{findings.found['title']}-{table}"


def _limits(found: Mapping[str, Any]) -> str:
    model, train, data = (found["run"][section] for section in ("model", "train", "data"))
    notes = train["steps"] * train["batch_size"] * data["num_events"]
    times = " and ".join(f"{notes / max(1, about['notes']):.2g} times the {name} corpus" for name, about in found["corpora"].items())
    return f"""### What this can and cannot say

These are models of {model["layers"]} layers x {model["width"]} that have seen {notes:,} events in crops of {data["num_events"]}: {times}.
Models that learn for longer, or from more, end elsewhere. What differs here differs in how fast it is learned; a difference that
only shows in long contexts, in large models or after long training does not show, and one that shows may vanish. Speeds at
12 x 512 are in BENCHMARKS.md. Intervals over two or three seeds are wide, and
so they should be: seeds vary the parameters that training begins with and the order of the crops, not the pieces that
are asked about. A system that tells less of a piece (`mmt` has no drums, velocities and tempos) has fewer bits per note for
that reason alone."""


def _set_up(found: Mapping[str, Any]) -> str:
    train, data, asked, chosen = found["run"]["train"], found["run"]["data"], found["evaluation"], found["rates"]
    ratios = """ "Times reference" is the ratio of the notes per second of the
compiled loop, with the 95% interval of a paired bootstrap over turns."""
    ratios *= any("times_reference" in speed for speed in found["speeds"].values())
    rates = sorted({rate for tried in found["search"].values() for rate in tried}, key=float)
    rows = []
    for system, tried in found["search"].items():
        family = found["families"][system]
        losses = (f"{tried[rate]:.3f}" if rate in tried else "-" for rate in rates)
        rows.append((family, f"`{system}`", *losses, f"{chosen[family]:g}"))
    corpora = [
        (name, f"{about['pieces']:,}", f"{about['notes']:,}", f"{about['tested']:,}")
        for name, about in found["corpora"].items()
    ]
    return f"""### How it was done

Every model reads the same crops of {data["num_events"]} events, {train["batch_size"]} to a batch, for {train["steps"]:,} steps
unless its table says otherwise, with the same optimiser and schedule. The learning rate alone is tuned, one for each family:
the one with the lowest validation loss (nats per note) of one system and one seed after {found["seek_steps"]:,} steps; where the best
was at the edge, the one beyond it was tried too.

{markdown_table(("family", "sought with", *rates, "chosen"), rows)}

Bits per note are of {asked["likelihood_pieces"] or "all"} pieces of the test split, every token counted. NMSI is of
{asked["prompts"]} prompts of four bars and up to {asked["max_bars"]} bars behind them, {asked["samples"]} continuation(s) of each.
A bracket is the 95% interval over seeds by Student's t.{ratios}

{markdown_table(("corpus", "pieces to train on", "their notes", "pieces of the test split"), corpora)}"""


def _table(findings: Findings, name: str) -> str:
    found, rows = findings.found, findings.rows(name)
    about = found["tables"][name]
    lines = [
        _line(findings, name, row, corpus)
        for row in rows
        for corpus in (about["test_on"] or [row.corpus])
        if findings.values(row, corpus, "bits")
    ]
    done = sum(min(len(findings.cells(row)), about["seeds"]) for row in rows)
    wanted = len(rows) * about["seeds"]
    remarks = [f"{done} of its {wanted} models are trained." * (done < wanted)]
    cut = max((cell["cut"] for row in rows for cell in findings.cells(row).values()), default=0.0)
    remarks.append(f"Up to {cut:.2%} of the steps that a model's crops had did not fit into them and were cut off." * (cut > 0))
    steps, model = about["own"].get("steps"), about["own"].get("model", {})
    own = [f"trained for {steps:,} steps instead of {found['run']['train']['steps']:,}"] if steps else []
    own += [f"{field} {value} instead of {found['run']['model'][field]}" for field, value in sorted(model.items())]
    remarks.append(f"Here all have: {', '.join(own)}." * bool(own))
    remarks = "".join(f"{remark}\n\n" for remark in remarks if remark)
    kept = [column for column in range(len(COLUMNS)) if any(line[column] != "-" for line in lines)]
    lines = [[line[column] for column in kept] for line in lines]
    return f"""<a id="{_anchor(findings, name)}"></a>

### {TITLES.get(name, name)}

{remarks}{markdown_table([COLUMNS[column] for column in kept], lines)}"""


def _line(findings: Findings, table: str, row: Row, corpus: str) -> list[str]:
    """A row of a table, asked about one corpus."""
    # Merges are compared to none, the others to the reference that was trained as they were.
    reference = Row("remi" if table == "merges" else findings.found["reference"], row.corpus, variant=row.variant)
    cells, speed = findings.cells(row), findings.speed(row)
    line = [f"`{row.system}`", row.corpus, corpus, str(len(cells)), f"{next(iter(cells.values()))['parameters']:,}"]
    for number, digits in (("bits", 3), ("nmsi", 1)):
        line.append(_mean(findings.mean(row, corpus, number), digits))
        difference = findings.difference(row, reference, corpus, number)
        line.append("-" if row == reference else _mean(difference, digits, sign=True))
    line.append(_mean(findings.mean(row, corpus, "relative"), 2))
    has = lambda name, show: show(speed[name]) if name in speed else "-"
    return [
        *line,
        has("notes_per_second", "{:,.0f}".format),
        has("times_reference", lambda times: interval(*times, 2)),
        has("cache_bytes", lambda size: f"{size / 1e6:.2f}"),
        has("steps_per_note", "{:.2f}".format),
    ]


def _floors(found: Mapping[str, Any]) -> str:
    rows = [
        (corpus, floor, SAID[floor], f"{scores[floor]['nmsi']:.1f}", f"{scores[floor]['relative']:.2f}")
        for corpus, scores in found["floors"].items()
        for floor in FLOORS
    ]
    return f"""### What needs no model

{markdown_table(("corpus", "floor", "what it writes", "NMSI", "relative"), rows)}

Relative: 0 for another piece, 1 for the composer's own later bars."""


def _mean(value: Mean, digits: int, sign: bool = False) -> str:
    return interval(value.mean, value.low, value.high, digits, sign)
