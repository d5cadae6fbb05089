"""Chroma similarity and self-similarity distance as StrIPE states them literally, the ancestors of NMSI's parts.

StrIPE (arXiv 2502.10491) works on piano rolls of 16 steps per quarter. These are kept for comparison with its numbers and are
no part of the index.
"""

import numpy as np

from sage_jax.evaluation.nmsi import nearest_steps, unit_rows
from sage_jax.music.notes import DRUMS, Piece

STEPS_PER_QUARTER = 16
CHROMA_STEPS = 32  # two quarters
SSM_STEPS = 2  # an eighth of a quarter


def stripe(reference: Piece, candidate: Piece, quarters: int) -> tuple[float, float]:
    """(CS, SSMD) of the first `quarters` quarters of two continuations, both times 100: for a copy, 100 less its silent units, and 0.

    CS: the mean over units of two quarters of the cosine between onset counts by pitch class. SSMD: the mean over all pairs of
    units of an eighth of a quarter of the difference between cosines of what sounds, by pitch class. An empty unit has cosine
    0 with all. Drums are left out, and tracks are not told apart, where StrIPE's task has three.
    """
    steps = quarters * STEPS_PER_QUARTER
    one, other = (_rolls(piece, steps) for piece in (reference, candidate))
    units = lambda roll, size: np.add.reduceat(roll, np.arange(0, steps, size), axis=0)
    a, b = (unit_rows(units(onsets, CHROMA_STEPS)) for onsets, _ in (one, other))
    S, R = (unit_rows(units(sounding, SSM_STEPS)) for _, sounding in (one, other))
    return 100 * float((a * b).sum(axis=1).mean()), 100 * float(np.abs(S @ S.T - R @ R.T).mean())


def _rolls(piece: Piece, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """([steps, 12] notes that begin, [steps, 12] notes that sound), by pitch class."""
    notes = piece.notes[piece.notes["program"] != DRUMS]
    nearest = lambda ticks: nearest_steps(ticks, piece.ticks_per_quarter, STEPS_PER_QUARTER)
    onset, duration = nearest(notes["onset"]), np.maximum(nearest(notes["duration"]), 1)
    inside = onset < steps
    onset, tone = onset[inside], notes["pitch"][inside] % 12
    end = np.minimum(onset + duration[inside], steps)
    begins, changes = np.zeros((steps, 12), np.float32), np.zeros((steps + 1, 12), np.float32)
    np.add.at(begins, (onset, tone), 1)
    np.add.at(changes, (onset, tone), 1)
    np.add.at(changes, (end, tone), -1)
    return begins, np.cumsum(changes, axis=0)[:-1]
