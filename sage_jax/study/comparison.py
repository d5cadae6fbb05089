"""Means of a study's variants and their differences, over seeds and test pieces."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from sage_jax.study.config import Variant
from sage_jax.study.results import CorpusScores, StudyResult, StudyTable
from sage_jax.study.statistics import Estimate, influence


class Cells(NamedTuple):
    """The parts of a score by seed and piece, [S, P] each: the score is sum(amounts) / sum(counts)."""

    amounts: np.ndarray
    counts: np.ndarray

    def values(self) -> np.ndarray:
        """[S, P] values whose mean is the score. Pieces that count nothing for any seed are left out."""
        kept = self.counts.any(axis=0)
        return influence(self.amounts[:, kept], self.counts[:, kept])


def mean(result: StudyResult, variant: Variant, corpus: str, metric: str, seeds: Collection[int] | None = None) -> Estimate:
    """One of METRICS of a variant on a corpus. seeds: those that count; None for all.

    The interval is over seeds and pieces, or over seeds alone where the pieces were not kept.
    """
    scores = _scores(result, variant, corpus, seeds)
    chosen = [scores[seed] for seed in sorted(scores)]
    if chosen and _has_pieces(chosen, metric):
        return Estimate.of_table(_cells(result, corpus, metric, chosen, _known(chosen)).values())
    return Estimate.of_seeds([getattr(each, metric) for each in chosen])


def difference(result: StudyResult, variant: Variant, other: Variant, corpus: str, metric: str) -> Estimate:
    """The mean of `variant` minus that of `other`, over their common seeds and pieces.

    Trials of the same seed train on the same crops in the same order.
    """
    ours, theirs = (_scores(result, each, corpus, None) for each in (variant, other))
    seeds = sorted(ours.keys() & theirs.keys())
    return _difference(result, corpus, metric, [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def control(result: StudyResult, table: StudyTable, variant: Variant, corpus: str, metric: str) -> Estimate:
    """The A/A pair of a table: the further seeds of `variant`, its reference, minus as many of its first ones."""
    scores = _scores(result, variant, corpus, None)
    pairs = [(scores[seed + table.seeds], scores[seed]) for seed in sorted(scores) if seed + table.seeds in scores]
    pairs = pairs[: min(table.seeds, result.control_seeds)]
    return _difference(result, corpus, metric, [further for further, _ in pairs], [first for _, first in pairs])


def _difference(
    result: StudyResult, corpus: str, metric: str, ours: Sequence[CorpusScores], theirs: Sequence[CorpusScores]
) -> Estimate:
    if ours and _has_pieces([*ours, *theirs], metric):
        known = _known([*ours, *theirs])
        one, two = (_cells(result, corpus, metric, each, known) for each in (ours, theirs))
        counted = one.counts.any(axis=0) & two.counts.any(axis=0)
        values = [influence(each.amounts[:, counted], each.counts[:, counted]) for each in (one, two)]
        return Estimate.of_table(values[0] - values[1])
    pairs = [(getattr(one, metric), getattr(two, metric)) for one, two in zip(ours, theirs, strict=True)]
    return Estimate.of_seeds([one - two for one, two in pairs if one is not None and two is not None])


def _scores(result: StudyResult, variant: Variant, corpus: str, seeds: Collection[int] | None) -> dict[int, CorpusScores]:
    trials = result.trials_of(variant)
    return {
        seed: trial.scores[corpus] for seed, trial in trials.items() if corpus in trial.scores and (not seeds or seed in seeds)
    }


def _has_pieces(scores: Sequence[CorpusScores], metric: str) -> bool:
    return all(each.piece_bits if metric == "bits_per_note" else each.prompt_nmsi for each in scores)


def _known(scores: Sequence[CorpusScores]) -> np.ndarray:
    """bool [prompts]: whether each of `scores` has the NMSI of a prompt."""
    return np.all([[value is not None for value in each.prompt_nmsi] for each in scores], axis=0)


def _cells(result: StudyResult, corpus: str, metric: str, scores: Sequence[CorpusScores], known: np.ndarray) -> Cells:
    """The cells of one of METRICS. known: the prompts that count."""
    if metric == "bits_per_note":
        return Cells(
            np.array([each.piece_bits for each in scores], float), np.array([each.piece_notes for each in scores], float)
        )
    test = result.held_out[corpus]
    nmsi = np.array([each.prompt_nmsi for each in scores], float)
    unit = np.ones(nmsi.shape[1])
    if metric == "normalized_nmsi":
        other, later = (np.array(test.baselines[name], float) for name in ("other", "later"))
        known = known & ~np.isnan(other) & ~np.isnan(later)
        nmsi, unit = nmsi - other, later - other
    names, owner = np.unique(np.array(test.prompt_pieces), return_inverse=True)
    by_piece = np.zeros((len(names), len(owner)))
    by_piece[owner[known], np.flatnonzero(known)] = 1
    amounts = np.where(known, nmsi, 0) @ by_piece.T
    return Cells(amounts, np.broadcast_to(np.where(known, unit, 0) @ by_piece.T, amounts.shape))
