"""Means of a study's variants and their differences, over seeds and test pieces."""

from collections.abc import Collection, Sequence

import numpy as np

from sage_jax.study.config import Variant
from sage_jax.study.results import CorpusScores, StudyResult, StudyTable
from sage_jax.study.statistics import CrossedEstimate, influence


def mean(
    result: StudyResult, variant: Variant, corpus: str, metric: str, seeds: Collection[int] | None = None
) -> CrossedEstimate:
    """One of METRICS of a variant on a corpus. seeds: those that count; None for all.

    The interval is over seeds and pieces, or over seeds alone where the pieces were not kept.
    """
    scores = result.scores_of(variant, corpus)
    chosen = [scores[seed] for seed in sorted(scores) if seeds is None or seed in seeds]
    if chosen and _has_pieces(chosen, metric):
        (values,) = _values(result, corpus, metric, chosen)
        return CrossedEstimate.of_table(values)
    return CrossedEstimate.of_seeds([getattr(each, metric) for each in chosen])


def difference(result: StudyResult, variant: Variant, other: Variant, corpus: str, metric: str) -> CrossedEstimate:
    """The mean of `variant` minus that of `other`, over their common seeds and pieces.

    Trials of the same seed train on the same crops in the same order.
    """
    ours, theirs = (result.scores_of(each, corpus) for each in (variant, other))
    seeds = sorted(ours.keys() & theirs.keys())
    return _difference(result, corpus, metric, [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def control(result: StudyResult, table: StudyTable, variant: Variant, corpus: str, metric: str) -> CrossedEstimate:
    """The A/A pair of a table: the further seeds of `variant`, its reference, minus as many of its first ones."""
    scores = result.scores_of(variant, corpus)
    pairs = [(scores[seed + table.seeds], scores[seed]) for seed in sorted(scores) if seed + table.seeds in scores]
    pairs = pairs[: min(table.seeds, result.control_seeds)]
    return _difference(result, corpus, metric, [further for further, _ in pairs], [first for _, first in pairs])


def _difference(
    result: StudyResult, corpus: str, metric: str, ours: Sequence[CorpusScores], theirs: Sequence[CorpusScores]
) -> CrossedEstimate:
    if ours and _has_pieces([*ours, *theirs], metric):
        one, two = _values(result, corpus, metric, ours, theirs)
        return CrossedEstimate.of_table(one - two)
    pairs = [(getattr(one, metric), getattr(two, metric)) for one, two in zip(ours, theirs, strict=True)]
    return CrossedEstimate.of_seeds([one - two for one, two in pairs if one is not None and two is not None])


def _has_pieces(scores: Sequence[CorpusScores], metric: str) -> bool:
    return all(each.piece_bits if metric == "bits_per_note" else each.prompt_nmsi for each in scores)


def _values(result: StudyResult, corpus: str, metric: str, *groups: Sequence[CorpusScores]) -> list[np.ndarray]:
    """For each group of S trials, [S, P] values whose mean is its score, on what counts for all groups."""
    known = np.all([[value is not None for value in each.prompt_nmsi] for group in groups for each in group], axis=0)
    cells = [_cells(result, corpus, metric, group, known) for group in groups]
    counted = np.all([counts.any(axis=0) for _, counts in cells], axis=0)
    return [influence(amounts[:, counted], counts[:, counted]) for amounts, counts in cells]


def _cells(
    result: StudyResult, corpus: str, metric: str, scores: Sequence[CorpusScores], known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(amounts, counts) of one of METRICS by seed and piece, [S, P] each: the score is sum(amounts) / sum(counts).

    known: bool [prompts], those that count.
    """
    if metric == "bits_per_note":
        bits, notes = ([getattr(each, field) for each in scores] for field in ("piece_bits", "piece_notes"))
        return np.array(bits, float), np.array(notes, float)
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
    return amounts, np.broadcast_to(np.where(known, unit, 0) @ by_piece.T, amounts.shape)
