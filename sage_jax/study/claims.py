"""The paper's claims next to the study's measurements. A verdict follows from the interval alone."""

import dataclasses
from collections.abc import Iterator

from sage_jax.benchmark.ratios import Ratio
from sage_jax.evaluation.statistics import interval
from sage_jax.study.config import Variant
from sage_jax.study.results import Mean, StudyResult, VariantSpeed

SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTED = "supported", "contradicted", "inconclusive at this size", "not tested"
METHOD = "as_kvhs-mixed-1"
CLAIMED_SPEEDUP = 1.3  # of the paper's method in decoding
EQUIVALENCE_MARGIN = 1.0  # points of NMSI; the paper's difference is smaller still


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim: its text, the measurement, the verdict and the table that it rests on."""

    text: str
    measured: str
    verdict: str
    table: str


def below(difference: Mean) -> str:
    """The verdict on "the difference is below 0"."""
    return SUPPORTED if difference.high < 0 else CONTRADICTED if difference.low > 0 else INCONCLUSIVE


def above(difference: Mean, bound: float = 0.0) -> str:
    """The verdict on "the difference is above `bound`"."""
    return SUPPORTED if difference.low > bound else CONTRADICTED if difference.high < bound else INCONCLUSIVE


def within(difference: Mean, margin: float) -> str:
    """The verdict on "the difference is not worse than -margin"."""
    return above(difference, -margin)


def not_above(difference: Mean) -> str:
    """The verdict on "the difference is 0 or below"."""
    return SUPPORTED if difference.high <= 0 else CONTRADICTED if difference.low > 0 else INCONCLUSIVE


def speed_claims(speed: VariantSpeed | None, reference: str) -> Iterator[Claim]:
    """The two claims about the method's speed: that it is faster, and by how much. speed: of the method, as reportable."""
    faster, much = "Sharing heads by attribute decodes faster", f"It decodes at least {CLAIMED_SPEEDUP:g} times as fast"
    if speed is None or speed.speedup is None or speed.control is None:
        for text in (faster, much):
            yield Claim(text, "not measured in enough turns here; see docs/benchmarks.md for 12 x 512", UNTESTED, "-")
        return
    speedup, control = speed.speedup, speed.control
    measured = f"speedup {speedup} in notes/s over `{reference}`, {speedup.turns} turns; A/A {control}"
    for text, bound in ((faster, 1.0), (much, CLAIMED_SPEEDUP)):
        yield Claim(text, measured, _speed_verdict(speedup, control, bound), "sharing")


def _speed_verdict(speedup: Ratio, control: Ratio, bound: float) -> str:
    if control.excludes_one:  # the method finds a difference between identical models
        return INCONCLUSIVE
    return above(Mean(speedup.value, speedup.low, speedup.high, 0), bound)


def claims(result: StudyResult) -> Iterator[Claim]:
    """The paper's published claims and our own, as far as the study has trials for them."""
    reference, home = result.reference, result.lr_search_corpus
    baseline, method = Variant(reference, home), Variant(METHOD, home)
    yield from speed_claims(result.speed_of(method), reference)
    difference = result.difference(method, baseline, home, "nmsi")
    if difference.seeds > 1:
        text = f"It costs almost no NMSI (0.4%): less than {EQUIVALENCE_MARGIN:g} point"
        verdict = within(difference, EQUIVALENCE_MARGIN)
        yield Claim(text, f"{_show(difference, 'points')}, vs. `{reference}`", verdict, "sharing")
    difference = result.difference(method, Variant("mqa", home), home, "bits_per_note")
    if difference.seeds > 1:
        text = "Specialized projections are better than one head shared by all attributes (`mqa`)"
        yield Claim(text, _show(difference, "bits per note"), below(difference), "sharing")
    difference = result.difference(Variant("pooled", home), baseline, home, "bits_per_note")
    if difference.seeds > 1:
        text = "Pooling the attributes of an event loses quality"
        yield Claim(text, f"{_show(difference, 'bits per note')}, vs. `{reference}`", above(difference), "forms")
    yield from _merge_claims(result)
    yield from _transfer_claims(result, method, baseline)
    yield Claim("Listeners like it slightly better", "no listening test was held; launch.listening makes one", UNTESTED, "-")
    yield from _nested_claims(result)


def _merge_claims(result: StudyResult) -> Iterator[Claim]:
    for corpus in result.corpora:
        helps = corpus != result.lr_search_corpus
        for system in ("bpe2000", "bpe20000"):
            difference = result.difference(Variant(system, corpus), Variant("remi", corpus), corpus, "nmsi")
            if difference.seeds > 1:
                text = f"{system.removeprefix('bpe')} merges {'help' if helps else 'hurt'} on {corpus} music"
                verdict = above(difference) if helps else below(difference)
                yield Claim(text, f"{_show(difference, 'points of NMSI')}, vs. REMI+ without merges", verdict, "merges")


def _transfer_claims(result: StudyResult, method: Variant, baseline: Variant) -> Iterator[Claim]:
    home = result.lr_search_corpus
    for corpus in result.corpora:
        difference = result.difference(method, baseline, corpus, "nmsi")
        if corpus != home and difference.seeds > 1:
            text = f"Trained on {home}, sharing keeps its quality on {corpus}: less than {EQUIVALENCE_MARGIN:g} point lost"
            verdict = within(difference, EQUIVALENCE_MARGIN)
            yield Claim(text, _show(difference, "points of NMSI"), verdict, "other_music")


def _nested_claims(result: StudyResult) -> Iterator[Claim]:
    for table in ("forms", "longer"):
        variants = {each.system: each for each in result.tables[table].variants} if table in result.tables else {}
        for system in ("nested-mqa", "nested2-mqa"):
            if system not in variants or result.reference not in variants:
                continue
            reference = variants[result.reference]
            difference = result.difference(variants[system], reference, result.lr_search_corpus, "bits_per_note")
            if difference.seeds > 1:
                text = f"Ours: `{system}` predicts no worse than flat `{result.reference}`"
                text += ", trained longer" if table == "longer" else ""
                yield Claim(text, _show(difference, "bits per note"), not_above(difference), table)


def _show(difference: Mean, unit: str) -> str:
    return f"{interval(difference.mean, difference.low, difference.high, 2, sign=True)} {unit}, {difference.seeds} seeds"
