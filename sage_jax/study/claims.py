"""What the paper claims, beside what the study measured, and a verdict that follows from intervals alone."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from sage_jax.evaluation.statistics import interval
from sage_jax.study.config import Row
from sage_jax.study.results import Findings, Mean

HOLDS, FAILS, OPEN, UNTESTED = "holds", "fails", "undecided at this size", "not tested"
METHOD = "as_kvhs-mixed-1"
CLAIMED_TIMES = 1.3  # how many times as fast the paper says that its method decodes
ENOUGH = 1.0  # points of NMSI within which two systems are called equal; the paper's difference is smaller still


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, what was measured of it, the verdict, and the table that it rests on."""

    claim: str
    measured: str
    verdict: str
    table: str


def below(difference: Mean) -> str:
    """The verdict on "this difference is below 0"."""
    return HOLDS if difference.high < 0 else FAILS if difference.low > 0 else OPEN


def above(difference: Mean) -> str:
    """The verdict on "this difference is above 0"."""
    return HOLDS if difference.low > 0 else FAILS if difference.high < 0 else OPEN


def within(difference: Mean, bound: float) -> str:
    """The verdict on "this difference is not worse than -bound"."""
    return HOLDS if difference.low > -bound else FAILS if difference.high < -bound else OPEN


def not_above(difference: Mean) -> str:
    """The verdict on "this difference is 0 or below"."""
    return HOLDS if difference.high <= 0 else FAILS if difference.low > 0 else OPEN


def speed_claims(speed: Mapping[str, Any], reference: str) -> Iterator[Claim]:
    """Two claims of the method's speed: that it is faster, and by how much. speed: of its row, as far as it is proven."""
    faster, much = "Sharing heads by attribute decodes faster", f"It decodes at least {CLAIMED_TIMES:g} times as fast"
    if "times_reference" not in speed:
        for text in (faster, much):
            yield Claim(text, "not measured in enough turns here; see BENCHMARKS.md for 12 x 512", UNTESTED, "-")
        return
    ratio, control = (Mean(*speed[name], speed["turns"]) for name in ("times_reference", "control"))
    times, same = (interval(each.mean, each.low, each.high, 2) for each in (ratio, control))
    measured = f"{times} times the notes per second of `{reference}`, {speed['turns']} turns; A/A {same}"
    method_failed = control.low > 1 or control.high < 1
    for text, bound in ((faster, 1.0), (much, CLAIMED_TIMES)):
        gain = Mean(ratio.mean - bound, ratio.low - bound, ratio.high - bound, ratio.seeds)
        yield Claim(text, measured, OPEN if method_failed else above(gain), "sharing")


def claims(findings: Findings) -> Iterator[Claim]:
    """Those of the paper that are publicly known, and ours, as far as there are cells for them."""
    reference, corpora = findings.found["reference"], findings.found["corpora"]
    here = findings.found["seek_on"]
    plain, method = Row(reference, here), Row(METHOD, here)

    def told(difference: Mean, unit: str) -> str:
        return f"{interval(difference.mean, difference.low, difference.high, 2, sign=True)} {unit}, {difference.seeds} seeds"

    yield from speed_claims(findings.speed(method), reference)
    difference = findings.difference(method, plain, here, "nmsi")
    if difference.seeds > 1:
        text = f"It costs next to nothing in NMSI (0.4%): less than {ENOUGH:g} point"
        yield Claim(text, f"{told(difference, 'points')}, than `{reference}`", within(difference, ENOUGH), "sharing")
    difference = findings.difference(method, Row("mqa", here), here, "bits")
    if difference.seeds > 1:
        text = "Specialised projections are better than one head that all attributes share (`mqa`)"
        yield Claim(text, told(difference, "bits per note"), below(difference), "sharing")
    difference = findings.difference(Row("pooled", here), plain, here, "bits")
    if difference.seeds > 1:
        text = "Pooling the attributes of an event loses quality"
        yield Claim(text, f"{told(difference, 'bits per note')}, than `{reference}`", above(difference), "forms")
    for corpus in corpora:
        better = corpus != here
        for system in ("bpe2000", "bpe20000"):
            difference = findings.difference(Row(system, corpus), Row("remi", corpus), corpus, "nmsi")
            if difference.seeds > 1:
                text = f"{system.removeprefix('bpe')} merges {'help' if better else 'hurt'} on {corpus} music"
                verdict = above(difference) if better else below(difference)
                yield Claim(text, f"{told(difference, 'points of NMSI')}, than REMI+ without", verdict, "merges")
    for corpus in corpora:
        if corpus == here:
            continue
        difference = findings.difference(method, plain, corpus, "nmsi")
        if difference.seeds > 1:
            text = f"Trained on {here}, sharing keeps its quality on {corpus}: less than {ENOUGH:g} point lost"
            yield Claim(text, told(difference, "points of NMSI"), within(difference, ENOUGH), "other_music")
    yield Claim("Listeners like it slightly better", "no listening test was held; launch.listening makes one", UNTESTED, "-")
    for table in ("forms", "longer"):
        for system in ("nested-mqa", "nested2-mqa"):
            rows = {row.system: row for row in findings.rows(table)} if table in findings.found["tables"] else {}
            if system not in rows or reference not in rows:
                continue
            difference = findings.difference(rows[system], rows[reference], here, "bits")
            if difference.seeds > 1:
                text = f"Ours: `{system}` predicts no worse than flat `{reference}`" + (", trained longer" * (table == "longer"))
                yield Claim(text, told(difference, "bits per note"), not_above(difference), table)
