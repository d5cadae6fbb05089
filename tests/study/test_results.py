"""The result of a study: means over seeds, verdicts, and the published JSON files."""

import json

import pytest

from sage_jax.errors import UserError
from sage_jax.files import ROOT
from sage_jax.study.claims import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    UNTESTED,
    above,
    below,
    not_above,
    speed_claims,
    within,
)
from sage_jax.study.config import Variant
from sage_jax.study.results import Mean, StudyResult, VariantSpeed, read_result
from tests.study.helpers import trial_result, variant_speed

PUBLISHED = sorted((ROOT / "docs").glob("study-*.json"))


def test_verdicts_follow_from_the_interval():
    lower, higher, unsure = Mean(-2, -3, -1, 3), Mean(2, 1, 3, 3), Mean(0.5, -2, 3, 3)
    assert [below(each) for each in (lower, higher, unsure)] == [SUPPORTED, CONTRADICTED, INCONCLUSIVE]
    assert [above(each) for each in (lower, higher, unsure)] == [CONTRADICTED, SUPPORTED, INCONCLUSIVE]
    assert [not_above(each) for each in (lower, higher, unsure)] == [SUPPORTED, CONTRADICTED, INCONCLUSIVE]
    assert [within(each, 0.5) for each in (lower, higher, unsure)] == [CONTRADICTED, SUPPORTED, INCONCLUSIVE]
    one = Mean.of([4.0])
    assert below(one) == above(one) == within(one, 1.0) == INCONCLUSIVE  # one seed has no interval


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
    assert [claim.verdict for claim in speed_claims(speed and speed.reportable, "mha")] == verdicts


def test_a_speed_survives_json():
    speed = variant_speed()
    assert VariantSpeed.from_json(json.loads(json.dumps(speed.to_json()))) == speed == speed.reportable
    assert variant_speed(turns=19).reportable.to_json() == dict(steps_per_note=1.0, cache_bytes=8)


def test_a_mean_over_seeds_has_students_interval():
    mean = Mean.of([1.0, 2.0, 3.0, None])
    assert mean.seeds == 3 and mean.mean == 2
    assert mean.high - mean.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t of 2 degrees of freedom, std 1
    assert Mean.of([]).seeds == 0


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


def test_differences_pair_seeds():
    variant, other = Variant("mqa", "piano"), Variant("mha", "piano")
    ours = [trial_result(variant, seed, bits) for seed, bits in enumerate((9.0, 11.0, 1.0, None))]
    theirs = [trial_result(other, seed, bits) for seed, bits in ((0, 8.0), (1, 10.0), (3, 5.0))]
    values = json.loads(PUBLISHED[0].read_text()) | {"trials": []}
    result = StudyResult.from_json(values)
    result.trials.extend([*ours, *theirs])
    difference = result.difference(variant, other, "piano", "bits_per_note")
    assert (difference.mean, difference.seeds) == (1.0, 2)
    assert difference.low == pytest.approx(1.0) and difference.high == pytest.approx(1.0)
