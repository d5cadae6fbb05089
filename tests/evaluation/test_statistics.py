"""Intervals that cover what they should, pieces that count as pieces, and the power of a comparison."""

import math

import numpy as np
import pytest

from sage_jax.evaluation.statistics import Power, estimate, ratio


def clustered(pieces: int, prompts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values whose spread lies between pieces, most of it, and the pieces."""
    owner = np.repeat(np.arange(pieces), prompts)
    return rng.normal(0, 3, pieces)[owner] + rng.normal(0, 1, len(owner)), owner


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = flat = 0
    for trial in range(100):
        values, owner = clustered(25, 8, rng)
        found = estimate(values, owner, seed=trial)
        covered += found.low <= 0 <= found.high
        # What takes prompts for independent is too sure.
        naive = estimate(values, np.arange(len(values)), seed=trial)
        flat += naive.low <= 0 <= naive.high
    assert covered >= 90
    assert flat < 70


def test_few_pieces_are_told_by_wide_intervals():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        values, owner = clustered(5, 8, rng)
        found = estimate(values, owner, seed=trial)
        covered += found.low <= 0 <= found.high
    assert covered >= 86  # a plain percentile interval would cover 80


def test_a_mean_and_what_it_rests_on():
    found = estimate(np.array([1.0, 2.0, np.nan, 6.0]), np.array(["a", "a", "a", "b"]))
    assert (found.mean, found.count, found.clusters) == (3.0, 3, 2)
    assert found.low <= 3 <= found.high and str(found) == f"3.0 ({found.low:.1f} to {found.high:.1f})"
    alone = estimate(np.array([1.0, 2.0]), np.array(["a", "a"]))
    assert alone.mean == 1.5 and math.isnan(alone.low)
    assert estimate(np.array([1.0, 2.0, 3.0]), np.arange(3), seed=1) == estimate(np.array([1.0, 2.0, 3.0]), np.arange(3), seed=1)


def test_a_ratio_weighs_pieces_by_what_they_count():
    found = ratio(np.array([10.0, 30.0]), np.array([10, 10]), np.array([0, 1]))
    assert found.mean == 2.0 and (found.low, found.high) == (1.0, 3.0)


def test_power_is_what_the_textbook_says():
    # FIELD.md 6.4: at a paired standard deviation of 12.2, one point takes about 1,170 prompts, and 2,000 resolve 0.76.
    power = Power(12.2, 500)
    assert power.needed(1.0) == pytest.approx(1170, abs=3)
    assert power.needed(0.29) == pytest.approx(13_900, rel=0.01)
    assert power.resolved(2000) == pytest.approx(0.764, abs=0.002)
    assert power.resolved() == pytest.approx(1.53, abs=0.01)


def test_prompts_of_one_piece_count_for_less():
    rng = np.random.default_rng(1)
    values, owner = clustered(200, 5, rng)
    independent = Power.of(values, np.arange(len(values)))
    together = Power.of(values, owner)
    assert independent.spread == pytest.approx(values.std(), rel=0.01)
    assert together.spread > 1.8 * independent.spread  # the root of 1 + 4 x 0.9 is 2.1
    alone = Power.of(values, np.zeros(len(values)))
    assert math.isnan(alone.needed(1.0)) and math.isnan(alone.resolved())
