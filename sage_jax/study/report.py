"""The report of a study: a part of docs/results.md."""

import os
import pathlib
from collections.abc import Callable

from sage_jax.benchmark.ratios import MIN_TURNS
from sage_jax.evaluation.baselines import BASELINES
from sage_jax.evaluation.report import SAID
from sage_jax.evaluation.statistics import interval
from sage_jax.markdown import markdown_table, write_part
from sage_jax.study.claims import claims
from sage_jax.study.config import Variant
from sage_jax.study.plots import plot
from sage_jax.study.results import Mean, StudyResult, VariantSpeed

TITLE = "# Results of the study\n"
TITLES = {
    "forms": "Tokenization and architecture",
    "sharing": "KV sharing, at equal width and depth",
    "equal_parameters": "KV sharing, at equal parameters",
    "merges": "Byte-pair encoding",
    "other_music": "Transfer to another corpus",
    "longer": "Longer training",
}
COLUMNS = (
    "system", "trained on", "evaluated on", "seeds", "parameters", "bits per note", "Δ bits", "NMSI", "Δ NMSI",
    "normalized NMSI", "notes/s", "speedup", "cache, MB", "steps/note",
)  # fmt: skip


def write_report(result: StudyResult, report: pathlib.Path, figure: pathlib.Path) -> None:
    """Writes the figure, and the part of `report` with the study's title as its heading.

    Parts with other titles stay as they are.
    """
    plot(result, figure)
    link = os.path.relpath(figure, report.parent)
    parts = [_preface(result), _claims(result), _limits(result), _method(result)]
    parts.append(f"![Bits per note of the systems]({link})")
    names = [*(name for name in TITLES if name in result.tables), *(name for name in result.tables if name not in TITLES)]
    parts += [_table(result, name) for name in names if result.tables[name].variants]
    parts.append(_baselines(result))
    write_part(report, TITLE, "\n\n".join(part for part in parts if part))


def _preface(result: StudyResult) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in result.versions.items())
    done = len(result.trials)
    timed = sum(speed.notes_per_second is not None for speed in result.speeds.values())
    progress = "All" if done == result.num_trials else f"**Not finished:** {done} of"
    return f"""## The study `{result.title}`

Written by `{result.command}` from its JSON. Commit {result.commit}. {versions}.
{progress} {result.num_trials} models are trained and evaluated; the speed of {timed or "none"} is measured in enough turns."""


def _claims(result: StudyResult) -> str:
    rows = [(claim.text, claim.measured, claim.verdict, _link(result, claim.table)) for claim in claims(result)]
    table = markdown_table(("claim", "measured here", "verdict", "table"), rows)
    return f"""### The paper's claims

The paper (arXiv 2510.00395) compares on music, code and weights that are not public, and its authors withdrew its results for
re-analysis. A verdict follows from the interval alone: *supported* or *contradicted* if all of it lies on one side, else
*inconclusive*. A verdict on speed also needs {MIN_TURNS} turns, and an A/A pair whose interval contains 1.

{table}"""


def _link(result: StudyResult, table: str) -> str:
    return f"[{table}](#{_anchor(result, table)})" if table in result.tables else "-"


def _anchor(result: StudyResult, table: str) -> str:
    return f"{result.title}-{table}"


def _limits(result: StudyResult) -> str:
    model, train, data = (result.run[section] for section in ("model", "train", "data"))
    notes = train["steps"] * train["batch_size"] * data["context_events"]
    epochs = [f"{notes / max(1, size['notes']):.2g} times the {name} corpus" for name, size in result.corpora.items()]
    return f"""### Limitations

These models have {model["num_layers"]} layers x {model["embed_dim"]} and were trained on {notes:,} events in crops of \
{data["context_events"]}: {" and ".join(epochs)}.
Differences here are differences in how fast a system learns. A difference that appears only in long contexts, in large models
or after long training does not show here, and one that shows here may vanish. Speeds at 12 x 512 are in docs/benchmarks.md.
Intervals over two or three seeds are wide. Seeds vary the initial parameters and the order of the crops, but not the test
pieces. A system that encodes less of a piece (`mmt` has no drums, velocities or tempos) has fewer bits per note for that reason
alone."""


def _method(result: StudyResult) -> str:
    train, data, evaluation, chosen = result.run["train"], result.run["data"], result.evaluation, result.learning_rates
    speedup = ""
    if any(speed.speedup is not None for speed in result.speeds.values()):
        speedup = """ Speedup is the ratio of the notes per
second of the compiled loop over the reference, with a 95% interval by a paired bootstrap over turns."""
    rates = sorted({rate for losses in result.lr_search.values() for rate in losses}, key=float)
    rows = []
    for system, losses in result.lr_search.items():
        family = result.families[system]
        shown = (f"{losses[rate]:.3f}" if rate in losses else "-" for rate in rates)
        rows.append((family, f"`{system}`", *shown, f"{chosen[family]:g}"))
    corpora = [
        (name, f"{size['pieces']:,}", f"{size['notes']:,}", f"{size['test_pieces']:,}")
        for name, size in result.corpora.items()
    ]
    return f"""### Method

All models train on the same crops of {data["context_events"]} events, {train["batch_size"]} per batch, for {train["steps"]:,}
steps (unless a table says otherwise), with the same optimizer and schedule. Only the learning rate is tuned, once per family:
the rate with the lowest validation loss (nats per note) of one system and one seed after {result.lr_search_steps:,} steps. If
the best rate is at the edge, the search goes on beyond it.

{markdown_table(("family", "tuned with", *rates, "chosen"), rows)}

Bits per note are over {evaluation["likelihood_pieces"] or "all"} pieces of the test split and count every token. NMSI is over
{evaluation["prompts"]} prompts of four bars, each continued by up to {evaluation["max_bars"]} bars, \
{evaluation["samples"]} continuation(s) each.
Brackets are 95% intervals over seeds by Student's t. Δ is the paired difference to the reference: `{result.reference}`, or in
the table of merges REMI+ without merges.{speedup}

{markdown_table(("corpus", "training pieces", "training notes", "test pieces"), corpora)}"""


def _table(result: StudyResult, name: str) -> str:
    table = result.tables[name]
    rows = [
        _row(result, name, variant, corpus)
        for variant in table.variants
        for corpus in (table.test_on or [variant.corpus])
        if result.values(variant, corpus, "bits_per_note")
    ]
    done = sum(min(len(result.trials_of(variant)), table.seeds) for variant in table.variants)
    planned = len(table.variants) * table.seeds
    remarks = [f"{done} of its {planned} models are trained."] if done < planned else []
    cut = max((trial.cut for variant in table.variants for trial in result.trials_of(variant).values()), default=0.0)
    if cut > 0:
        remarks.append(f"Up to {cut:.2%} of the steps of a model's crops were cut off because they did not fit.")
    steps, model = table.overrides.get("steps"), table.overrides.get("model", {})
    overrides = [f"{steps:,} training steps instead of {result.run['train']['steps']:,}"] if steps else []
    overrides += [f"{field} {value} instead of {result.run['model'][field]}" for field, value in sorted(model.items())]
    if overrides:
        remarks.append(f"All models of this table have {', '.join(overrides)}.")
    kept = [column for column in range(len(COLUMNS)) if any(row[column] != "-" for row in rows)]
    rows = [[row[column] for column in kept] for row in rows]
    text = "".join(f"{remark}\n\n" for remark in remarks)
    return f"""<a id="{_anchor(result, name)}"></a>

### {TITLES.get(name, name)}

{text}{markdown_table([COLUMNS[column] for column in kept], rows)}"""


def _row(result: StudyResult, table: str, variant: Variant, corpus: str) -> list[str]:
    """The row of a variant, evaluated on one corpus."""
    # Merges are compared to none. Others are compared to the reference with the same corpus and overrides.
    reference = Variant("remi" if table == "merges" else result.reference, variant.corpus, table=variant.table)
    trials, speed = result.trials_of(variant), result.speed_of(variant)
    row = [f"`{variant.system}`", variant.corpus, corpus, str(len(trials)), f"{next(iter(trials.values())).parameters:,}"]
    for metric, digits in (("bits_per_note", 3), ("nmsi", 1)):
        row.append(_mean(result.mean(variant, corpus, metric), digits))
        difference = result.difference(variant, reference, corpus, metric)
        row.append("-" if variant == reference else _mean(difference, digits, sign=True))
    row.append(_mean(result.mean(variant, corpus, "normalized_nmsi"), 2))
    return [
        *row,
        _show_speed(speed, "notes_per_second", "{:,.0f}".format),
        _show_speed(speed, "speedup", str),
        _show_speed(speed, "cache_bytes", lambda size: f"{size / 1e6:.2f}"),
        _show_speed(speed, "steps_per_note", "{:.2f}".format),
    ]


def _show_speed(speed: VariantSpeed | None, field: str, show: Callable[..., str]) -> str:
    value = getattr(speed, field, None)
    return "-" if value is None else show(value)


def _baselines(result: StudyResult) -> str:
    rows = [
        (corpus, name, SAID[name], _number(scores[name]["nmsi"], 1), _number(scores[name]["normalized_nmsi"], 2))
        for corpus, scores in result.baselines.items()
        for name in BASELINES
    ]
    return f"""### Baselines without a model

{markdown_table(("corpus", "baseline", "continuation", "NMSI", "normalized NMSI"), rows)}

Normalized NMSI is 0 for the continuation of another piece and 1 for the composer's own later bars."""


def _number(value: float | None, digits: int) -> str:
    return interval(value, None, None, digits)


def _mean(value: Mean, digits: int, sign: bool = False) -> str:
    return interval(value.mean, value.low, value.high, digits, sign)
