"""The result of a study: means over seeds, verdicts, and the published JSON files."""

import dataclasses
import json
import math
from collections.abc import Sequence

import pytest

from sage_jax.errors import UserError
from sage_jax.files import ROOT
from sage_jax.study.claims import CONTRADICTED, INCONCLUSIVE, SUPPORTED, UNTESTED, Claim, claims, judge, speed_claims
from sage_jax.study.comparison import control, difference, mean
from sage_jax.study.config import Variant
from sage_jax.study.results import HeldOut, StudyResult, VariantSpeed, read_result
from sage_jax.study.statistics import CrossedEstimate
from tests.study.helpers import trial_result, variant_speed

PUBLISHED = sorted((ROOT / "docs").glob("study-*.json"))


def claim(p: float, is_above: bool = True, **fields) -> Claim:
    """A claim that something is above a bound."""
    return Claim("text", "measured", p, is_above, claims_above=True, **fields)


def test_verdicts_are_corrected_for_their_number():
    found = [claim(0.01), claim(0.02, is_above=False), claim(0.03), Claim("none", "held")]
    assert [each.verdict for each in judge(found)] == [SUPPORTED, CONTRADICTED, SUPPORTED, UNTESTED]
    assert [each.p for each in judge(found)][:3] == pytest.approx([0.03, 0.04, 0.04])
    assert [each.verdict for each in judge([claim(0.03)] * 2)] == [INCONCLUSIVE] * 2
    assert judge([claim(0.03)])[0].verdict == SUPPORTED
    assert judge([claim(0.001, control_p=0.04)])[0].verdict == INCONCLUSIVE  # the A/A pair differs
    assert judge([claim(0.001, control_p=0.2)])[0].verdict == SUPPORTED


def test_an_inconclusive_claim_says_what_would_decide_it():
    """At the level of the first of Holm's steps, whatever the other claims."""
    found = CrossedEstimate(0.3, 0.2, 1e9, 3, 20, (0.04, 0.2, 0.1))
    alone, among_ten = (judge([claim(0.5, found=found)] * number)[0].decides for number in (1, 10))
    assert (alone, among_ten) == (f"detectable: 0.56; {beyond(found, 0.05)}", f"detectable: 0.73; {beyond(found, 0.005)}")
    tiny = dataclasses.replace(found, mean=1e-5)
    assert judge([claim(0.9, found=tiny)])[0].decides.endswith("; it takes more than 100 seeds x 500,000 pieces to decide it")
    over_seeds = dataclasses.replace(found, components=None)
    assert judge([claim(0.5, found=over_seeds)])[0].decides == "detectable: 0.56"
    assert judge([claim(0.01, found=found)])[0].decides == judge([claim(0.5)])[0].decides == ""


def beyond(found: CrossedEstimate, level: float) -> str:
    seeds, pieces = found.required(found.mean, level) or (0, 0)
    return f"{seeds} seeds x {pieces:,} pieces would decide it"


@pytest.mark.parametrize(
    ("speed", "verdicts"),
    [
        (variant_speed(), [SUPPORTED, CONTRADICTED]),  # faster, but not by 30%
        (variant_speed(speedup=(1.5, 1.4, 1.6)), [SUPPORTED, SUPPORTED]),
        (variant_speed(speedup=(1.3, 1.1, 1.5)), [SUPPORTED, INCONCLUSIVE]),
        (variant_speed(speedup=(1.0, 0.9, 1.1)), [INCONCLUSIVE, CONTRADICTED]),
        (variant_speed(speedup=(0.8, 0.7, 0.9)), [CONTRADICTED, CONTRADICTED]),
        (variant_speed(control=(1.04, 1.01, 1.07)), [INCONCLUSIVE, INCONCLUSIVE]),  # identical models differ, too
        (variant_speed(turns=19), [UNTESTED] * 2),
        (VariantSpeed(1.0, 8, notes_per_second=9.0), [UNTESTED] * 2),
        (None, [UNTESTED] * 2),
    ],
)
def test_verdicts_on_speed_need_turns_and_a_control(speed, verdicts):
    found = list(speed_claims(speed and speed.reportable, "mha"))
    assert [judge([claim])[0].verdict for claim in found] == verdicts


def test_a_speed_survives_json():
    speed = variant_speed()
    assert VariantSpeed.from_json(json.loads(json.dumps(speed.to_json()))) == speed == speed.reportable
    assert variant_speed(turns=19).reportable.to_json() == dict(steps_per_note=1.0, cache_bytes=8)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_results_are_read_whole(path):
    values = json.loads(path.read_text())
    result = read_result(path)
    assert json.loads(json.dumps(result.to_json())) == values  # with reportable speeds only
    assert len(result.trials) == result.num_trials and result.lr_search.keys() <= result.families.keys()
    assert all(set(scores) == {"loop", "other", "later", "markov"} for scores in result.baselines.values())


def test_another_file_is_not_a_result(tmp_path):
    for text in ("[]", "{}", '{"cells": []}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UserError, match="is not the JSON of a study"):
            read_result(tmp_path / "other.json")
    with pytest.raises(UserError, match="is not the JSON of a study"):
        read_result(tmp_path / "missing.json")


def result_of(trials: list, **fields) -> StudyResult:
    """A result with these trials, and otherwise a published one."""
    result = StudyResult.from_json(json.loads(PUBLISHED[0].read_text()) | {"trials": []})
    return dataclasses.replace(result, trials=trials, **fields)


def test_without_pieces_differences_pair_seeds():
    variant, other = Variant("mqa", "piano"), Variant("mha", "piano")
    ours = [trial_result(variant, seed, bits) for seed, bits in enumerate((9.0, 11.0, 1.0, None))]
    theirs = [trial_result(other, seed, bits) for seed, bits in ((0, 8.0), (1, 10.0), (3, 5.0))]
    found = difference(result_of([*ours, *theirs]), variant, other, "piano", "bits_per_note")
    assert (found.mean, found.seeds, found.pieces) == (1.0, 2, 0)
    assert found.low == pytest.approx(1.0) and found.high == pytest.approx(1.0)


NOTES = [10, 30]
TEST_SET = HeldOut(["a", "b"], ["a", "a", "b"], {"other": [1.0, 1.0, 1.0], "later": [3.0, 3.0, 3.0]})


def with_pieces(variant: Variant, seed: int, bits: Sequence[float], nmsi: list[float | None]):
    return trial_result(variant, seed, sum(bits) / sum(NOTES), piece_bits=list(bits), piece_notes=NOTES, prompt_nmsi=nmsi)


def test_means_and_differences_are_over_seeds_and_pieces():
    variant, other = Variant("mqa", "piano"), Variant("mha", "piano")
    ours = [with_pieces(variant, 0, [20, 90], [2.0, 4.0, None]), with_pieces(variant, 1, [30, 60], [2.0, 4.0, 6.0])]
    theirs = [with_pieces(other, 0, [10, 90], [1.0, 1.0, 1.0]), with_pieces(other, 1, [10, 90], [1.0, 1.0, 1.0])]
    result = result_of([*ours, *theirs], held_out={"piano": TEST_SET})
    found = mean(result, variant, "piano", "bits_per_note")
    assert (found.mean, found.seeds, found.pieces) == (pytest.approx(200 / 80), 2, 2) and found.low < found.mean < found.high
    assert mean(result, variant, "piano", "bits_per_note", seeds=[0]).mean == pytest.approx(110 / 40)
    assert mean(result, variant, "piano", "nmsi").mean == 3.0  # the third prompt has no score for one seed
    assert mean(result, variant, "piano", "normalized_nmsi").mean == pytest.approx((3.0 - 1.0) / 2.0)
    found = difference(result, variant, other, "piano", "bits_per_note")
    assert (found.mean, found.seeds, found.pieces) == (pytest.approx(0.0), 2, 2)


def test_the_control_compares_further_seeds_of_the_reference_with_its_first_ones():
    reference = Variant("mha", "piano")
    bits = [[10, 30], [12, 30], [14, 30], [10, 34]]
    trials = [with_pieces(reference, seed, each, [1.0, 1.0, 1.0]) for seed, each in enumerate(bits)]
    result = result_of(trials, held_out={"piano": TEST_SET}, control_seeds=2)
    table = dataclasses.replace(result.tables["sharing"], seeds=2)
    found = control(result, table, reference, "piano", "bits_per_note")
    assert (found.mean, found.seeds) == (pytest.approx((88 - 82) / 80), 2)
    assert control(dataclasses.replace(result, control_seeds=0), table, reference, "piano", "nmsi").seeds == 0


def test_models_that_still_improved_count_nowhere():
    variant = Variant("mqa", "piano")
    trials = [trial_result(variant, seed, bits) for seed, bits in enumerate((9.0, 11.0))]
    trials.append(dataclasses.replace(trial_result(variant, 2, 1.0), converged=False))
    result = result_of(trials)
    assert mean(result, variant, "piano", "bits_per_note").mean == 10.0 and [each.seed for each in result.unconverged] == [2]


def test_published_verdicts_have_a_p_value_for_each_claim_that_was_measured():
    for path in PUBLISHED:
        found = judge(list(claims(read_result(path))))
        assert all((each.verdict == UNTESTED) == math.isnan(each.p) for each in found)
        assert any(each.verdict != UNTESTED for each in found)
