"""Intervals over seeds and test pieces together, and verdicts corrected for their number.

Every seed of a system is evaluated on every piece: a crossed design of two random factors. An interval over seeds alone says
nothing about other music, and one over pieces alone says nothing about training again. The variance of the mean of a table
[S seeds, P pieces] is estimated from the mean squares of the seeds, the pieces and the rest:

    variance = (MS_seeds + MS_pieces - MS_rest) / (S P)

The interval is Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2; Searle, Casella
and McCulloch 1992, Variance Components, chapter 4).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

from sage_jax.evaluation.statistics import CONFIDENCE, power_quantile

NAN = float("nan")
MAX_SEEDS = 100  # that `CrossedEstimate.required` looks at before it adds pieces
MAX_PIECES = 10**6


@dataclasses.dataclass(frozen=True)
class CrossedEstimate:
    """A mean, or a mean difference, with its 95% confidence interval; nan where it is unknown.

    error: the standard error. freedom: degrees of freedom. seeds, pieces: S and P; P is 0 for an interval over seeds alone.
    components: the variances of a seed, of a piece and of the rest; None for an interval over seeds alone.
    """

    mean: float = NAN
    error: float = NAN
    freedom: float = NAN
    seeds: int = 0
    pieces: int = 0
    components: tuple[float, float, float] | None = None

    @classmethod
    def of_seeds(cls, values: Sequence[float | None]) -> "CrossedEstimate":
        """Over seeds alone, for results that were kept without their pieces. None is left out."""
        known = np.asarray([value for value in values if value is not None], float)
        if not len(known):
            return cls()
        error = float(known.std(ddof=1)) / len(known) ** 0.5 if len(known) > 1 else NAN
        return cls(float(known.mean()), error, len(known) - 1, len(known))

    @classmethod
    def of_table(cls, values: np.ndarray) -> "CrossedEstimate":
        """Over seeds and pieces, of the mean of `values` [S, P]. There is no interval without two of each."""
        S, P = values.shape
        mean = float(values.mean()) if values.size else NAN
        if S < 2 or P < 2:
            return cls(mean, seeds=S, pieces=P)
        of_seed, of_piece = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
        seeds = P * float(((of_seed - mean) ** 2).sum()) / (S - 1)
        pieces = S * float(((of_piece - mean) ** 2).sum()) / (P - 1)
        rest = float(((values - of_seed - of_piece + mean) ** 2).sum()) / ((S - 1) * (P - 1))
        total, freedom = map(float, _satterthwaite(seeds, pieces, rest, S, P))
        # A factor whose estimated variance is negative has none: the mean varies with the other factor alone.
        if total < max(seeds, pieces):
            total, freedom = max((seeds, S - 1.0), (pieces, P - 1.0))
        components = max(0.0, seeds - rest) / P, max(0.0, pieces - rest) / S, rest
        return cls(mean, (total / (S * P)) ** 0.5, freedom, S, P, components)

    @property
    def half_width(self) -> float:
        """Half of the interval; nan without one."""
        return float(special.stdtrit(self.freedom, (1 + CONFIDENCE) / 2)) * self.error if self.freedom > 0 else NAN

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    def p_value(self, bound: float = 0.0) -> float:
        """Two-sided, that the mean is `bound`; nan without an interval."""
        if not self.freedom > 0:
            return NAN
        if self.error == 0:
            return 1.0 if self.mean == bound else 0.0
        return float(2 * special.stdtr(self.freedom, -abs(self.mean - bound) / self.error))

    def detectable(self, level: float = 1 - CONFIDENCE) -> float:
        """The smallest difference that these seeds and pieces detect with 80% power at a two-sided `level`."""
        return float(power_quantile(level, self.freedom)) * self.error if self.freedom > 0 else NAN

    def required(self, difference: float, level: float = 1 - CONFIDENCE) -> tuple[int, int] | None:
        """(seeds, pieces) that detect `difference` with that power.

        They are the fewest seeds for the pieces there are, or, where MAX_SEEDS do not suffice, for twice as many and so on.
        None without variance components, and for more than MAX_PIECES.
        """
        if self.components is None or not difference:
            return None
        seed, piece, rest = self.components
        S, P = np.arange(2, MAX_SEEDS + 1), self.pieces
        while P <= MAX_PIECES:
            total, freedom = _satterthwaite(P * seed + rest, S * piece + rest, rest, S, P)
            error = np.sqrt(total / (S * P))
            enough = np.flatnonzero((error == 0) | (abs(difference) >= power_quantile(level, freedom) * error))
            if len(enough):
                return int(S[enough[0]]), P
            P *= 2
        return None


def _satterthwaite(
    seeds: np.ndarray | float, pieces: np.ndarray | float, rest: float, S: np.ndarray | int, P: int
) -> tuple[np.ndarray | float, np.ndarray]:
    """(variance times S P, degrees of freedom) of the mean of a table [S, P] with these mean squares; 0 without variance."""
    total = seeds + pieces - rest
    squares = np.asarray(seeds**2 / (S - 1) + pieces**2 / (P - 1) + rest**2 / ((S - 1) * (P - 1)))
    return total, np.divide(total**2, squares, out=np.zeros_like(squares), where=squares > 0)


def influence(amounts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[S, P] values whose mean is sum(amounts) / sum(counts), such as bits per note, of `amounts` and `counts` [S, P].

    They are the ratio plus its linearization in each cell (Cochran 1977, Sampling Techniques, 6.3), so that the mean of their
    table has the ratio's variance.
    """
    ratio = amounts.sum() / counts.sum()
    return ratio + (amounts - ratio * counts) / counts.mean()


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6). nan stays and counts not."""
    order = sorted((value, index) for index, value in enumerate(p_values) if not np.isnan(value))
    corrected, highest = [NAN] * len(p_values), 0.0
    for rank, (value, index) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        corrected[index] = highest
    return corrected
