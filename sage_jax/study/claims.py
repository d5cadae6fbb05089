"""The paper's claims next to the study's measurements. Verdicts are corrected for the number of claims."""

import dataclasses
import math
from collections.abc import Callable, Iterator

from scipy import special

from sage_jax.benchmark.ratios import Ratio
from sage_jax.evaluation.statistics import CONFIDENCE, interval
from sage_jax.study.comparison import control, difference
from sage_jax.study.config import Variant
from sage_jax.study.results import StudyResult, VariantSpeed
from sage_jax.study.statistics import MAX_PIECES, MAX_SEEDS, CrossedEstimate, holm

SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTED = "supported", "contradicted", "inconclusive", "not tested"
METHOD = "as_kvhs-mixed-1"
CLAIMED_SPEEDUP = 1.3  # of the paper's method in decoding
EQUIVALENCE_MARGIN = 1.0  # points of NMSI; the paper's difference is smaller still
CLAIMED_MERGES = ("bpe2000", "bpe20000")  # of the paper; a table with none of them has its own
LEVEL = 1 - CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim that a quantity is above, or below, a bound.

    text: of the claim. measured: the quantity with its interval. table: that it rests on.
    p: two-sided, that the quantity is the bound; nan for what was not tested.
    is_above: whether the estimate lies above the bound. claims_above: whether the claim says so.
    found, bound: what p comes from; None for ratios.
    control_p: that the table's A/A pair, two groups of seeds of one system, is equal; nan without one.
    """

    text: str
    measured: str
    p: float = math.nan
    is_above: bool = False
    claims_above: bool = False
    table: str = "-"
    found: CrossedEstimate | None = None
    bound: float = 0.0
    control_p: float = math.nan


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    p: corrected by Holm's method for all claims with a p-value; nan for what was not tested.
    decides: beside an inconclusive one, what would be detected, and what would decide; "" if that is unknown.
    """

    claim: Claim
    p: float
    verdict: str
    decides: str = ""


def verdicts(result: StudyResult) -> list[Verdict]:
    """The verdicts on the paper's published claims and our own, as far as the study has trials for them."""
    return judge(list(claims(result)))


def judge(found: list[Claim]) -> list[Verdict]:
    """The verdict on each claim.

    One whose A/A pair differs is inconclusive: its method finds differences where there are none.
    """
    judged = []
    strictest = LEVEL / max(1, sum(not math.isnan(claim.p) for claim in found))  # that Holm's method asks of a claim
    for claim, p in zip(found, holm([claim.p for claim in found]), strict=True):
        verdict = INCONCLUSIVE
        if math.isnan(p):
            verdict = UNTESTED
        elif p < LEVEL and not claim.control_p < LEVEL:
            verdict = SUPPORTED if claim.is_above == claim.claims_above else CONTRADICTED
        judged.append(Verdict(claim, p, verdict, _deciding(claim, strictest) if verdict == INCONCLUSIVE else ""))
    return judged


def claims(result: StudyResult) -> Iterator[Claim]:
    """The claims, without their verdicts."""
    reference, home = result.reference, result.lr_search_corpus
    yield from speed_claims(result.speed_of(Variant(METHOD, home)), reference)
    text = f"It costs almost no NMSI (0.4%): less than {EQUIVALENCE_MARGIN:g} point"
    yield from _compared(result, "sharing", METHOD, reference, "nmsi", text, above=True, bound=-EQUIVALENCE_MARGIN)
    text = "Specialized projections are better than one head shared by all attributes (`mqa`)"
    yield from _compared(result, "sharing", METHOD, "mqa", "bits_per_note", text, above=False)
    text = f"One head shared by all attributes loses against `{reference}`"
    yield from _compared(result, "sharing", "mqa", reference, "bits_per_note", text, above=True)
    text = "Pooling the attributes of an event loses quality"
    yield from _compared(result, "forms", "pooled", reference, "bits_per_note", text, above=True)
    yield from _merge_claims(result)
    yield from _transfer_claims(result)
    yield Claim("Listeners like it slightly better", "no listening test was held; launch.listening makes one")
    for table, remark in (("forms", ""), ("longer", ", trained longer")):
        for system in ("nested-mqa", "nested2-mqa"):
            text = f"Ours: `{system}` predicts better than flat `{reference}`{remark}"
            yield from _compared(result, table, system, reference, "bits_per_note", text, above=False)
    text = "Ours: pooling loses against nested decoding (`nested2-mqa`)"
    yield from _compared(result, "forms", "pooled", "nested2-mqa", "bits_per_note", text, above=True)


def speed_claims(speed: VariantSpeed | None, reference: str) -> Iterator[Claim]:
    """The two claims about the method's speed: that it is faster, and by how much. speed: of the method, as reportable."""
    for text, bound in (
        ("Sharing heads by attribute decodes faster", 1.0),
        (f"It decodes at least {CLAIMED_SPEEDUP:g} times as fast", CLAIMED_SPEEDUP),
    ):
        if speed is None or speed.speedup is None or speed.control is None:
            yield Claim(text, "not measured in enough turns here; see docs/benchmarks.md for 12 x 512")
            continue
        speedup, same = speed.speedup, speed.control
        measured = f"speedup {speedup} in notes/s over `{reference}`, {speedup.turns} turns; A/A {same}"
        yield Claim(
            text,
            measured,
            p=ratio_p_value(speedup, bound),
            is_above=speedup.value > bound,
            claims_above=True,
            table="sharing",
            control_p=0.0 if same.excludes_one else 1.0,
        )


def ratio_p_value(ratio: Ratio, bound: float) -> float:
    """Two-sided, that a ratio is `bound`, as if its logarithm were normal with the interval that the bootstrap gave."""
    error = math.log(ratio.high / ratio.low) / (2 * special.ndtri((1 + CONFIDENCE) / 2))
    distance = abs(math.log(ratio.value / bound))
    return float(2 * special.ndtr(-distance / error)) if error else float(distance == 0)


def _merge_claims(result: StudyResult) -> Iterator[Claim]:
    for table in result.tables:
        merged = [each for each in result.tables[table].variants if each.system.startswith("bpe")]
        claimed = [each for each in merged if each.system in CLAIMED_MERGES]
        for variant in claimed or merged:
            helps = variant.corpus == "piano"
            merges = variant.system.removeprefix("bpe")
            text = f"{merges} merges {'help' if helps else 'hurt'} on {variant.corpus} music"
            for metric in ("nmsi", "bits_per_note"):
                above = helps == (metric == "nmsi")
                yield from _compared(
                    result, table, variant.system, "remi", metric, f"{text}, in {UNITS[metric]}", above, corpus=variant.corpus
                )


def _transfer_claims(result: StudyResult) -> Iterator[Claim]:
    home = result.lr_search_corpus
    for corpus in result.corpora:
        if corpus != home:
            text = f"Trained on {home}, sharing keeps its quality on {corpus}: less than {EQUIVALENCE_MARGIN:g} point lost"
            yield from _compared(
                result, "other_music", METHOD, result.reference, "nmsi", text, True, -EQUIVALENCE_MARGIN, test_on=corpus
            )


UNITS = {"nmsi": "points of NMSI", "bits_per_note": "bits per note"}


def _compared(
    result: StudyResult,
    table: str,
    system: str,
    other: str,
    metric: str,
    text: str,
    above: bool,
    bound: float = 0.0,
    corpus: str | None = None,
    test_on: str | None = None,
) -> Iterator[Claim]:
    """The claim that `system` minus `other` is above, or below, `bound`; none if the table has not both.

    corpus: that they are trained on, by default the home corpus; test_on: that they are evaluated on, by default the same.
    """
    corpus = corpus or result.lr_search_corpus
    test_on = test_on or corpus
    find: Callable[[str], Variant | None] = lambda name: next(
        (each for each in result.tables[table].variants if each.system == name and each.corpus == corpus), None
    )
    if table not in result.tables or not (one := find(system)) or not (two := find(other)):
        return
    found = difference(result, one, two, test_on, metric)
    if found.seeds < 2:
        return
    same = control(result, result.tables[table], result.reference_of(table, corpus), test_on, metric)
    yield Claim(
        text,
        f"{show(found, 2)} {UNITS[metric]} vs. `{other}`, {_size(found)}",
        p=found.p_value(bound),
        is_above=found.mean > bound,
        claims_above=above,
        table=table,
        found=found,
        bound=bound,
        control_p=same.p_value(),
    )


def _size(found: CrossedEstimate) -> str:
    return f"{found.seeds} seeds" + (f" x {found.pieces} pieces" if found.pieces else "")


def _deciding(claim: Claim, level: float) -> str:
    """What its seeds and pieces can detect at this level, and how many would decide a difference of the size measured."""
    found = claim.found
    if found is None or math.isnan(smallest := found.detectable(level)):
        return ""
    detectable = f"detectable: {smallest:.2f}"
    if found.components is None:
        return detectable
    if needed := found.required(found.mean - claim.bound, level):
        return f"{detectable}; {needed[0]} seeds x {needed[1]:,} pieces would decide it"
    return f"{detectable}; it takes more than {MAX_SEEDS} seeds x {MAX_PIECES // 2:,} pieces to decide it"


def show(found: CrossedEstimate, digits: int, sign: bool = True) -> str:
    """The mean with its interval."""
    return interval(found.mean, found.low, found.high, digits, sign)
