"""How many times as fast a system is as another one that took turns with it, and how sure that is."""

import dataclasses
from collections.abc import Sequence

import numpy as np

MIN_TURNS = 20  # under which a ratio has no interval that would prove anything
RESAMPLES = 10_000
CONFIDENCE = 0.95
CONTROL = " (A/A)"  # after the name of a system that takes part twice, as two workers of their own


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as fast: an estimate with its interval of 95% confidence, and the turns that it rests on."""

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
        """The same of a quantity that is so many times smaller."""
        return Ratio(self.value / factor, self.low / factor, self.high / factor, self.turns)


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Ratio | None:
    """The times of one system over those of the other one, a pair for each turn; None under MIN_TURNS.

    The estimate is the median over turns of the ratios within a turn, so that what slows a whole turn cancels out. The
    interval is the percentile bootstrap over turns (Efron and Tibshirani 1993, chapter 13). It takes turns for independent;
    where a machine drifts they are not, which the A/A pair of the same table shows.
    """
    ratios = np.array([long / short for long, short in zip(slower, faster, strict=True)])
    if len(ratios) < MIN_TURNS:
        return None
    drawn = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [tail, 100 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
