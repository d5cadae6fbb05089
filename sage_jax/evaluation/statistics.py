"""How sure a mean is: intervals over prompts that come from few pieces, paired differences, and how many prompts they need.

Prompts of one piece are alike, so it is pieces that are drawn again, each with all of its prompts (a cluster bootstrap): an
interval that takes prompts for independent would be too narrow.
"""

import dataclasses

import numpy as np
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its interval of 95% confidence, nan without one; how many values it rests on, and from how many clusters."""

    mean: float
    low: float
    high: float
    count: int
    clusters: int

    def __str__(self) -> str:
        return interval(self.mean, self.low, self.high)


def interval(mean: float | None, low: float | None, high: float | None, digits: int = 1, sign: bool = False) -> str:
    """'mean (low to high)'; what is None or nan is left out, and without a mean it is a dash."""
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    known = [form.format(value) for value in (mean, low, high) if value is not None and not np.isnan(value)]
    return "{} ({} to {})".format(*known) if len(known) == 3 else known[0] if known else "-"


def estimate(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of `values` [P], such as one for each prompt, and its interval over their clusters [P], such as its piece.

    A value that is nan is left out. For the difference of two systems on the same prompts, give the differences: that is the
    paired bootstrap.
    """
    known = ~np.isnan(values)
    return ratio(values[known], np.ones(known.sum()), np.asarray(clusters)[known], seed)


def ratio(amounts: np.ndarray, counts: np.ndarray, clusters: np.ndarray, seed: int = 0) -> Estimate:
    """sum(amounts) / sum(counts) with its interval, such as bits per note: both [P], of which those of one cluster are drawn together.

    The interval is the percentile bootstrap's, expanded for few clusters as a t interval is (Hesterberg 2015, The American
    Statistician 69): without that, five pieces would give two thirds of the width that they ought to. There is none for one.
    """
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    amount, count = (np.bincount(owner, weights=each, minlength=len(names)) for each in (amounts, counts))
    mean = float(amount.sum() / count.sum()) if count.sum() else float("nan")
    low = high = float("nan")
    if len(names) > 1:
        share = lambda amount, count, axis: amount.sum(axis=axis) / _not_zero(count.sum(axis=axis))
        freedom = len(names) - 1
        tail = stats.norm.cdf(np.sqrt(len(names) / freedom) * stats.t.ppf((1 - CONFIDENCE) / 2, freedom))
        bounds = stats.bootstrap(
            (amount, count),
            share,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, 1_000_000 // len(names)),
            confidence_level=1 - 2 * tail,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(bounds.low), float(bounds.high)
    return Estimate(mean, low, high, len(amounts), len(names))


def _not_zero(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.nan, values)


@dataclasses.dataclass(frozen=True)
class Power:
    """What the differences of two systems over prompts say about how many prompts a difference needs.

    spread: the standard deviation that one prompt would have, were prompts independent: that of the mean over pieces times
    the root of the number of prompts; nan for prompts of one piece. prompts: how many there were.
    """

    spread: float
    prompts: int

    @classmethod
    def of(cls, differences: np.ndarray, pieces: np.ndarray) -> "Power":
        """From paired differences [P] and the pieces [P] that their prompts come from."""
        known = ~np.isnan(differences)
        differences, pieces = differences[known], np.asarray(pieces)[known]
        names, owner = np.unique(pieces, return_inverse=True)
        count = len(names)
        if count < 2:
            return cls(float("nan"), len(differences))
        # The variance of a mean over clusters: that of their sums about their share of the mean.
        residues = np.bincount(owner, weights=differences - differences.mean(), minlength=count)
        variance = count / (count - 1) * (residues**2).sum() / len(differences) ** 2
        return cls(float(np.sqrt(variance * len(differences))), len(differences))

    def needed(self, difference: float) -> float:
        """Prompts that show `difference` with a power of 80% at a level of 5%, two-sided, with as many to a piece as here."""
        return float(np.ceil((_z() * self.spread / difference) ** 2))

    def resolved(self, prompts: int | None = None) -> float:
        """The least difference that as many prompts show with that power."""
        return float(_z() * self.spread / np.sqrt(prompts or self.prompts))


def _z() -> float:
    return stats.norm.ppf(1 - (1 - CONFIDENCE) / 2) + stats.norm.ppf(POWER)
