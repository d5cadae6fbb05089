"""Descriptive measures of a single piece, as defined by MusPy, and histograms of note attributes.

From MusPy (arXiv 2008.01951), as reported by the Multitrack Music Transformer (arXiv 2207.06983). Values closer to those of
real music are better; higher values are not.
"""

from collections.abc import Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


def pitch_class_entropy(piece: Piece) -> float:
    """-sum p log2 p over the pitch classes of notes, 0 to log2 12. Excludes drums; nan without pitched notes."""
    counts = pitch_classes(piece)
    if not counts.any():
        return float("nan")
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def scale_consistency(piece: Piece) -> float:
    """The largest share of notes in one major or natural minor scale. Excludes drums; nan without pitched notes."""
    counts = pitch_classes(piece)
    if not counts.any():
        return float("nan")
    inside = [counts[(np.array(scale) + root) % 12].sum() for scale in (MAJOR, MINOR) for root in range(12)]
    return float(max(inside) / counts.sum())


def groove_consistency(piece: Piece, bar_ticks: int) -> float:
    """1 - the mean share of tick positions at which only one of two successive bars has an onset.

    All instruments count. Bars have `bar_ticks` ticks from tick 0 on, regardless of the meter. As in MusPy, a piece that ends
    at a bar line is followed by an empty bar. nan for a piece of one bar.
    """
    bars = piece.end // bar_ticks + 1
    if bars < 2:
        return float("nan")
    grooves = np.zeros((bars, bar_ticks), bool)
    grooves.ravel()[piece.notes["onset"]] = True
    return float(1 - (grooves[1:] != grooves[:-1]).mean())


def pitch_classes(piece: Piece) -> np.ndarray:
    """The number of notes of each pitch class, [12], without drums."""
    return np.bincount(piece.notes["pitch"][piece.notes["program"] != DRUMS] % 12, minlength=12)


HISTOGRAMS = ("pitch class", "duration", "velocity", "instrument")
DURATIONS = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0])  # upper bin edges in quarters; the last bin is open


def histograms(pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
    """Histograms of the notes of `pieces`, normalized to sum 1; all 0 without notes.

    pitch class: [12], without drums. duration: [9], in the bins of DURATIONS. velocity: [16], eight values each.
    instrument: [17], General MIDI's 16 families and drums.
    """
    notes = np.concatenate([piece.notes for piece in pieces])
    quarters = notes["duration"] / np.repeat([piece.ticks_per_quarter for piece in pieces], [len(p.notes) for p in pieces])
    families = np.where(notes["program"] == DRUMS, 16, notes["program"] // 8)
    counts = (
        np.bincount(notes["pitch"][notes["program"] != DRUMS] % 12, minlength=12),
        np.bincount(np.searchsorted(DURATIONS, quarters, "left"), minlength=len(DURATIONS) + 1),
        np.bincount(notes["velocity"] // 8, minlength=16),
        np.bincount(families, minlength=17),
    )
    return {name: count / max(count.sum(), 1) for name, count in zip(HISTOGRAMS, counts, strict=True)}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The overlap of two histograms, 0 to 1: 1 - their total variation distance."""
    return float(np.minimum(one, other).sum())
