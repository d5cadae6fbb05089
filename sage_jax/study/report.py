"""The report of a study: a part of docs/results.md."""

import math
import os
import pathlib
from collections.abc import Callable

import numpy as np

from sage_jax.benchmark.ratios import MIN_TURNS
from sage_jax.evaluation.baselines import BASELINES
from sage_jax.evaluation.report import SAID
from sage_jax.evaluation.statistics import interval, ratio
from sage_jax.markdown import markdown_table, write_part
from sage_jax.study.claims import LEVEL, show, verdicts
from sage_jax.study.comparison import control, difference, mean
from sage_jax.study.config import Variant
from sage_jax.study.plots import plot
from sage_jax.study.results import StudyResult, VariantSpeed
from sage_jax.study.statistics import CrossedEstimate

TITLE = "# Results of the study\n"
APPENDIX = "Appendix: how fast systems learn"
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
    parts.append(f"![Bits per note of the systems]({link})" if result.trials else "")
    names = [*(name for name in TITLES if name in result.tables), *(name for name in result.tables if name not in TITLES)]
    parts += [_table(result, name) for name in names if result.tables[name].variants]
    parts += [_floors(result), _baselines(result)]
    write_part(report, TITLE, "\n\n".join(part for part in parts if part), before=f"## {APPENDIX}")


def _preface(result: StudyResult) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in result.versions.items())
    origin = f" Commit {result.commit}. {versions}." if result.trials else ""
    done = len(result.trials)
    timed = sum(speed.notes_per_second is not None for speed in result.speeds.values())
    progress = "All" if done == result.num_trials else f"**Not finished:** {done} of"
    unconverged = ", ".join(f"{trial.variant.name}, seed {trial.seed}" for trial in result.unconverged)
    left_out = f"These reached their last step while they still improved, and count nowhere: {unconverged}."
    title = f"The study `{result.title}`: models at their plateau" if result.patience else appendix(result.title)
    return f"""## {title}

Written by `{result.command}` from its JSON.{origin}
{progress} {result.num_trials} models are trained and evaluated; the speed of {timed or "none"} is measured in enough turns.
{left_out if unconverged else ""}""".strip()


def appendix(title: str) -> str:
    """The heading of the part of a study whose models had a fixed length of training."""
    return f"{APPENDIX}, the study `{title}`"


def _claims(result: StudyResult) -> str:
    rows = []
    for each in verdicts(result):
        claim, decides = each.claim, each.decides or "-"
        rows.append((claim.text, claim.measured, _number(each.p, 3), each.verdict, decides, _link(result, claim.table)))
    table = markdown_table(("claim", "measured here", "p", "verdict", "what would decide", "table"), rows)
    return f"""### The paper's claims

The paper (arXiv 2510.00395) compares on music, code and weights that are not public, and its authors withdrew its results for
re-analysis. A p-value is two-sided, and corrected for the number of claims by Holm's method. Below {LEVEL:.2f} a claim is
*supported* or *contradicted*, else *inconclusive*. For these the table has the smallest difference that would be detected with
80% power at a level of 5% divided by the number of claims, and the seeds and pieces that would decide the difference that was
measured. A claim whose table has an A/A pair that differs is inconclusive, and one on speed needs {MIN_TURNS} turns.

{table}"""


def _link(result: StudyResult, table: str) -> str:
    return f"[{table}](#{_anchor(result, table)})" if table in result.tables else "-"


def _anchor(result: StudyResult, table: str) -> str:
    return f"{result.title}-{table}"


def _limits(result: StudyResult) -> str:
    model, data = result.run["model"], result.run["data"]
    size = f"These models have {model['num_layers']} layers x {model['embed_dim']}"
    if result.patience:
        passes = [
            trial.events / max(1, result.corpora[trial.variant.corpus]["notes"])
            for trial in result.trials
            if trial.converged is not False
        ]
        often = f" for {min(passes):.1f} to {max(passes):.1f} passes" if passes else ""
        trained = f"""{size}. They trained on their corpus{often}, in crops of {data["context_events"]} events, until their
validation loss stopped improving. So their differences are not differences in how fast they learn. They may differ from those
of larger models, on more music and with longer contexts."""
    else:
        notes = result.run["train"]["steps"] * result.run["train"]["batch_size"] * data["context_events"]
        epochs = [f"{notes / max(1, size['notes']):.2g} times the {name} corpus" for name, size in result.corpora.items()]
        trained = f"""{size} and were trained on {notes:,} events in crops of {data["context_events"]}: {" and ".join(epochs)}.
Differences here are differences in how fast a system learns. A difference that appears only in long contexts, in large models
or after long training does not show here, and one that shows here may vanish."""
    return f"""### Limitations

{trained} Speeds at 12 x 512 are in docs/benchmarks.md.
A system that encodes less of a piece (`mmt` has no drums, velocities or tempos) has fewer bits per note for that reason alone.
Bits per note of a system with merges are those of one segmentation of each piece: an upper bound."""


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
        rows.append((family, f"`{system}`", *shown, f"{chosen[family]:g}", *_settled(result, system)))
    settled_column = ("best from step",) if any(each.curve for each in result.lr_trials) else ()
    order = " Its rate is the best one from the step on that the last column has." if settled_column else ""
    length, search = f"for {train['steps']:,} steps", f"after {result.lr_search_steps:,} steps"
    if result.patience:
        length = f"until {result.patience} evaluations, {train['eval_every']:,} steps apart, brought no lower validation loss"
        search = "of such a run" if result.lr_search_steps == train["steps"] else f"in at most {result.lr_search_steps:,} steps"
    over = "over seeds and test pieces as crossed random factors" if result.held_out else "over seeds alone, by Student's t"
    aa = (
        " The row A/A is the reference with further seeds, and its Δ is that to the reference: its interval should contain 0."
        if result.control_seeds
        else ""
    )
    corpora = [
        (name, f"{size['pieces']:,}", f"{size['notes']:,}", f"{size['test_pieces']:,}")
        for name, size in result.corpora.items()
    ]
    return f"""### Method

All models train on the same crops of {data["context_events"]} events, {train["batch_size"]} per batch, {length}
(unless a table says otherwise), with the same optimizer and schedule. Only the learning rate is tuned, once per family:
the rate with the lowest validation loss (nats per note) of one system and one seed, {search}. If
the best rate is at the edge, the search goes on beyond it.{order}

{markdown_table(("family", "tuned with", *rates, "chosen", *settled_column), rows)}

Bits per note are over {evaluation["likelihood_pieces"] or "all"} pieces of the test split and count every token. NMSI is over
{evaluation["prompts"]} prompts of four bars, each continued by up to {evaluation["max_bars"]} bars, \
{evaluation["samples"]} continuation(s) each.
Brackets are 95% intervals {over}. Δ is the paired difference to the reference: `{result.reference}`, or, in a
table without it, REMI+ without merges.{aa}{speedup}

{markdown_table(("corpus", "training pieces", "training notes", "test pieces"), corpora)}"""


def _settled(result: StudyResult, system: str) -> tuple[str, ...]:
    """The step from which on the best rate of a search was the best one, by the lowest validation loss so far."""
    curves = {each.learning_rate: each.curve for each in result.lr_trials if each.system == system and each.curve}
    if not curves:
        return ()
    steps = sorted({step for curve in curves.values() for step, _ in curve})
    lowest = {
        rate: [min((loss for at, loss in curve if at <= step), default=math.inf) for step in steps]
        for rate, curve in curves.items()
    }
    best = [min(lowest, key=lambda rate: lowest[rate][index]) for index in range(len(steps))]
    changed = [index for index in range(1, len(best)) if best[index] != best[index - 1]]
    return (f"{int(steps[changed[-1] if changed else 0]):,}",)


def _table(result: StudyResult, name: str) -> str:
    table = result.tables[name]
    rows = []
    for variant in table.variants:
        for corpus in table.test_on or [variant.corpus]:
            if result.scores_of(variant, corpus):
                rows.append(_row(result, name, variant, corpus))
                if result.control_seeds and variant == result.reference_of(name, variant.corpus):
                    rows.append(_control_row(result, name, variant, corpus))
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
    remarks += _segmentations(result, name)
    if not rows:
        return ""
    kept = [column for column in range(len(COLUMNS)) if any(row[column] != "-" for row in rows)]
    rows = [[row[column] for column in kept] for row in rows]
    text = "".join(f"{remark}\n\n" for remark in remarks)
    return f"""<a id="{_anchor(result, name)}"></a>

### {TITLES.get(name, name)}

{text}{markdown_table([COLUMNS[column] for column in kept], rows)}"""


def _row(result: StudyResult, name: str, variant: Variant, corpus: str) -> list[str]:
    """The row of a variant, evaluated on one corpus."""
    reference, speed = result.reference_of(name, variant.corpus), result.speed_of(variant)
    parameters = next(iter(result.trials_of(variant).values())).parameters
    compared = lambda metric: None if variant == reference else difference(result, variant, reference, corpus, metric)
    seeds, *scores = _score_columns(result, variant, corpus, range(result.tables[name].seeds), compared)
    return [
        f"`{variant.system}`",
        variant.corpus,
        corpus,
        seeds,
        f"{parameters:,}",
        *scores,
        _show_speed(speed, "notes_per_second", "{:,.0f}".format),
        _show_speed(speed, "speedup", str),
        _show_speed(speed, "cache_bytes", lambda size: f"{size / 1e6:.2f}"),
        _show_speed(speed, "steps_per_note", "{:.2f}".format),
    ]


def _control_row(result: StudyResult, name: str, variant: Variant, corpus: str) -> list[str]:
    """The A/A pair: the reference again, with further seeds."""
    table = result.tables[name]
    further = range(table.seeds, table.seeds + result.control_seeds)
    compared = lambda metric: control(result, table, variant, corpus, metric)
    seeds, *scores = _score_columns(result, variant, corpus, further, compared)
    return [f"`{variant.system}`, A/A", variant.corpus, corpus, seeds, "-", *scores, *["-"] * 4]


def _score_columns(
    result: StudyResult, variant: Variant, corpus: str, seeds: range, compared: Callable[[str], CrossedEstimate | None]
) -> list[str]:
    """The number of seeds, and the scores of these seeds. compared: the difference of a metric; None for none."""
    columns = [str(len(result.trials_of(variant).keys() & set(seeds)))]
    for metric, digits in (("bits_per_note", 3), ("nmsi", 1)):
        columns.append(show(mean(result, variant, corpus, metric, seeds), digits, sign=False))
        found = compared(metric)
        columns.append("-" if found is None else show(found, digits))
    return [*columns, show(mean(result, variant, corpus, "normalized_nmsi", seeds), 2, sign=False)]


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


def _segmentations(result: StudyResult, name: str) -> list[str]:
    """What the other segmentations take off the bits of the systems with merges."""
    remarks = []
    for variant in result.tables[name].variants:
        scores = [trial.scores.get(variant.corpus) for trial in result.trials_of(variant).values()]
        found = [each.segmentations for each in scores if each and each.segmentations]
        if found:
            gaps = [each["canonical"] - each["marginal"] for each in found]
            remarks.append(
                f"The bits of `{variant.system}` are those of one segmentation of each piece. All segmentations together, "
                f"sampled over the openings of {found[0]['pieces']:.0f} pieces, take off {max(gaps):.3f} bits per note, the "
                f"most of {len(gaps)} seed(s)."
            )
    return remarks


def _floors(result: StudyResult) -> str:
    rows = [
        (corpus, name, str(ratio(*map(np.array, zip(*cells, strict=True)), clusters=np.arange(len(cells)))))
        for corpus, floors in result.floors.items()
        for name, cells in floors.items()
    ]
    if not rows:
        return ""
    return f"""### Bits per note without a model

{markdown_table(("corpus", "floor", "bits per note"), rows)}

`uniform`: each token is uniform over what the grammar allows. `unigram`: by its frequency in the training split. `markov`: an
interpolated Markov chain over tokens (evaluation/floors.py). Intervals are over pieces."""


def _number(value: float | None, digits: int) -> str:
    return interval(value, None, None, digits)

