"""Intervals over seeds and pieces, and p-values corrected for their number."""

import dataclasses
from statistics import NormalDist

import numpy as np
import pytest

from sage_jax.study.statistics import CrossedEstimate, holm, influence


def test_over_seeds_alone_it_is_students_interval():
    found = CrossedEstimate.of_seeds([1.0, 2.0, 3.0, None])
    assert (found.mean, found.seeds, found.pieces) == (2.0, 3, 0)
    assert found.high - found.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t of 2 degrees of freedom, std 1
    assert CrossedEstimate.of_seeds([]).seeds == 0
    one = CrossedEstimate.of_seeds([4.0])
    assert one.mean == 4.0 and np.isnan([one.low, one.high, one.p_value(), one.detectable()]).all()


def test_variance_components_of_a_table_by_hand():
    table = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]])  # seeds differ by 2, pieces by (0, 1, 5); nothing is left
    found = CrossedEstimate.of_table(table)
    assert found.mean == 4.0 and found.components == pytest.approx((2.0, 7.0, 0.0))
    assert found.error == pytest.approx((2.0 / 2 + 7.0 / 3) ** 0.5)
    squares = 3 * 2.0, 2 * 7.0
    assert found.freedom == pytest.approx(sum(squares) ** 2 / (squares[0] ** 2 / 1 + squares[1] ** 2 / 2))
    for alone in (table[:1], table[:, :1]):
        assert np.isnan(CrossedEstimate.of_table(alone).low)


@pytest.mark.parametrize("deviations", [(0.1, 0.5, 0.2), (0.5, 0.1, 0.2), (0.3, 0.3, 0.3), (0.0, 0.0, 0.3)])
def test_intervals_hold_as_often_as_they_say(deviations):
    """Of seed, piece and rest. With three seeds Satterthwaite's degrees of freedom are an approximation."""
    seed, piece, rest = deviations
    rng, hits, count = np.random.default_rng(0), 0, 1000
    for _ in range(count):
        table = rng.normal(0, seed, (3, 1)) + rng.normal(0, piece, (1, 20)) + rng.normal(0, rest, (3, 20))
        found = CrossedEstimate.of_table(table)
        hits += found.low <= 0 <= found.high
        assert (found.p_value() > 0.05) == (found.low <= 0 <= found.high)
    assert hits / count > 0.91


def test_a_ratios_influence_has_its_mean():
    amounts, counts = np.array([[2.0, 9.0], [4.0, 6.0]]), np.array([[1.0, 3.0], [1.0, 3.0]])
    assert influence(amounts, counts).mean() == pytest.approx(21 / 8)
    assert influence(counts * 5, counts) == pytest.approx(np.full((2, 2), 5.0))


def test_what_would_decide():
    found = CrossedEstimate(mean=0.3, error=0.2, freedom=1e9, seeds=3, pieces=20, components=(0.04, 0.2, 0.1))
    assert found.detectable() == pytest.approx((1.959964 + 0.841621) * 0.2, rel=1e-5)
    assert found.detectable(0.05 / 11) == pytest.approx((NormalDist().inv_cdf(1 - 0.025 / 11) + 0.841621) * 0.2, rel=1e-5)

    def detects(seeds: int, pieces: int, level: float) -> float:
        """The mean squares of a table with exactly these variances give its error and degrees of freedom."""
        squares = np.array([pieces * 0.04 + 0.1, seeds * 0.2 + 0.1, -0.1])
        of = np.array([seeds - 1, pieces - 1, (seeds - 1) * (pieces - 1)])
        planned = squares.sum() ** 2 / (squares**2 / of).sum()
        return dataclasses.replace(found, error=(squares.sum() / (seeds * pieces)) ** 0.5, freedom=planned).detectable(level)

    for level in (0.05, 0.005):
        seeds, pieces = found.required(0.5, level) or (0, 0)
        assert pieces == 20 and detects(seeds, pieces, level) <= 0.5 < detects(seeds - 1, pieces, level)
    assert (found.required(0.5, 0.005) or (0, 0)) > (found.required(0.5) or (0, 0))
    assert (found.required(0.13) or (0, 0))[1] > 20 and found.required(0.001) is None  # more pieces; more than there may be
    assert found.required(0.0) is None and CrossedEstimate.of_seeds([1.0, 2.0]).required(0.3) is None


def test_what_is_not_decided_needs_more():
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = CrossedEstimate.of_table(rng.normal(0.3, 1, (3, 1)) + rng.normal(0, 1, (1, 12)) + rng.normal(0, 0.5, (3, 12)))
        needed = found.required(found.mean)
        assert found.p_value() < 0.05 or needed is None or needed > (3, 12) or needed[1] > 12


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.5, float("nan")])[1]) and holm([0.9, 0.8]) == [1.0, 1.0]
