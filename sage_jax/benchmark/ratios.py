"""Speed ratios of two systems that took turns, with confidence intervals."""

import dataclasses
from collections.abc import Sequence

import numpy as np

MIN_TURNS = 20  # a ratio of fewer turns is not reported
RESAMPLES = 10_000
CONFIDENCE = 0.95
CONTROL = " (A/A)"  # suffix of the second worker of a system that takes part twice


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A speed ratio: the estimate, its 95% confidence interval and the number of turns."""

    value: float
    low: float
    high: float
    turns: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def excludes_one(self) -> bool:
        return self.low > 1 or self.high < 1

    def over(self, factor: float) -> "Ratio":
        """The ratio divided by `factor`."""
        return Ratio(self.value / factor, self.low / factor, self.high / factor, self.turns)


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Ratio | None:
    """The ratio of two systems' times, given one time per turn; None for fewer than MIN_TURNS turns.

    The estimate is the median of the ratios within a turn, so that whatever slows a whole turn cancels out. The interval is the
    percentile bootstrap over turns (Efron and Tibshirani 1993, chapter 13). It assumes independent turns. On a machine that
    drifts they are not; the A/A pair of the same table shows how much that matters.
    """
    ratios = np.array([long / short for long, short in zip(slower, faster, strict=True)])
    if len(ratios) < MIN_TURNS:
        return None
    drawn = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [tail, 100 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
