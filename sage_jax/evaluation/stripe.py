"""StrIPE's chroma similarity (CS) and self-similarity matrix distance (SSMD), the predecessors of two parts of NMSI.

StrIPE (arXiv 2502.10491) defines them on piano rolls of 16 steps per quarter. They are reported for comparison with its
numbers, and are not part of NMSI.
"""

import numpy as np

from sage_jax.evaluation.nmsi import nearest_steps, unit_rows
from sage_jax.music.notes import DRUMS, Piece

STEPS_PER_QUARTER = 16
CHROMA_STEPS = 32  # two quarters
SSM_STEPS = 2  # an eighth of a quarter


def stripe(reference: Piece, candidate: Piece, quarters: int) -> tuple[float, float]:
    """(CS, SSMD) of the first `quarters` quarters of two continuations, both times 100.

    CS: the mean cosine between onset counts by pitch class, over units of two quarters.
    SSMD: the mean absolute difference between the two self-similarity matrices of sounding pitch classes, over pairs of units
    of an eighth of a quarter. An empty unit has cosine 0 with every unit. A copy has SSMD 0, and CS 100 less the share of its
    silent units. Drums are excluded, and all tracks are merged, whereas StrIPE's task has three tracks.
    """
    steps = quarters * STEPS_PER_QUARTER
    one, other = (_rolls(piece, steps) for piece in (reference, candidate))
    units = lambda roll, size: np.add.reduceat(roll, np.arange(0, steps, size), axis=0)
    a, b = (unit_rows(units(onsets, CHROMA_STEPS)) for onsets, _ in (one, other))
    S, R = (unit_rows(units(sounding, SSM_STEPS)) for _, sounding in (one, other))
    return 100 * float((a * b).sum(axis=1).mean()), 100 * float(np.abs(S @ S.T - R @ R.T).mean())


def _rolls(piece: Piece, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The onset roll and the sounding-note roll by pitch class, each [steps, 12]."""
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
