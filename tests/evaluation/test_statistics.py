"""Coverage of cluster bootstrap intervals, and the power analysis of paired comparisons."""

import math

import numpy as np
import pytest

from sage_jax.evaluation.statistics import Power, estimate, ratio


def clustered(pieces: int, prompts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values that vary mostly between pieces, and the piece of each."""
    owner = np.repeat(np.arange(pieces), prompts)
    return rng.normal(0, 3, pieces)[owner] + rng.normal(0, 1, len(owner)), owner


def test_intervals_have_the_nominal_coverage():
    rng = np.random.default_rng(0)
    covered = flat = 0
    for trial in range(100):
        values, owner = clustered(25, 8, rng)
        found = estimate(values, owner, seed=trial)
        covered += found.low <= 0 <= found.high
        # An interval that assumes independent prompts is too narrow.
        naive = estimate(values, np.arange(len(values)), seed=trial)
        flat += naive.low <= 0 <= naive.high
    assert covered >= 90
    assert flat < 70


def test_intervals_of_few_pieces_are_wide_enough():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        values, owner = clustered(5, 8, rng)
        found = estimate(values, owner, seed=trial)
        covered += found.low <= 0 <= found.high
    assert covered >= 86  # a plain percentile interval covers about 80


def test_an_estimate_counts_values_and_clusters():
    found = estimate(np.array([1.0, 2.0, np.nan, 6.0]), np.array(["a", "a", "a", "b"]))
    assert (found.mean, found.count, found.clusters) == (3.0, 3, 2)
    assert found.low <= 3 <= found.high and str(found) == f"3.0 ({found.low:.1f} to {found.high:.1f})"
    alone = estimate(np.array([1.0, 2.0]), np.array(["a", "a"]))
    assert alone.mean == 1.5 and math.isnan(alone.low)
    values = np.array([1.0, 2.0, 3.0])
    assert estimate(values, np.arange(3), seed=1) == estimate(values, np.arange(3), seed=1)


def test_a_ratio_weights_pieces_by_their_counts():
    found = ratio(np.array([10.0, 30.0]), np.array([10, 10]), np.array([0, 1]))
    assert found.mean == 2.0 and (found.low, found.high) == (1.0, 3.0)


def test_power_equals_the_textbook_formula():
    # n = ((1.960 + 0.842) * std / difference)^2
    power = Power(12.2, 500)
    assert power.required_prompts(1.0) == pytest.approx(1170, abs=3)
    assert power.required_prompts(0.29) == pytest.approx(13_900, rel=0.01)
    assert power.minimum_detectable_effect(2000) == pytest.approx(0.764, abs=0.002)
    assert power.minimum_detectable_effect() == pytest.approx(1.53, abs=0.01)


def test_correlated_prompts_reduce_the_power():
    rng = np.random.default_rng(1)
    values, owner = clustered(200, 5, rng)
    independent = Power.of(values, np.arange(len(values)))
    together = Power.of(values, owner)
    assert independent.std == pytest.approx(values.std(), rel=0.01)
    assert together.std > 1.8 * independent.std  # the design effect is 1 + 4 x 0.9, whose root is 2.1
    alone = Power.of(values, np.zeros(len(values)))
    assert math.isnan(alone.required_prompts(1.0)) and math.isnan(alone.minimum_detectable_effect())
