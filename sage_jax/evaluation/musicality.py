"""What a piece is like by itself, against no other: measures as MusPy states them, and counts to draw.

From MusPy (arXiv 2008.01951) and the measures that the Multitrack Music Transformer reports (arXiv 2207.06983): closer to
what real music has is better, not higher.
"""

from collections.abc import Sequence

import numpy as np

from sage_jax.music.notes import DRUMS, Piece

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


def pitch_class_entropy(piece: Piece) -> float:
    """-sum p log2 p over the pitch classes of notes, 0 to log2 12; drums are left out, nan without other notes."""
    counts = pitch_classes(piece)
    if not counts.any():
        return float("nan")
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def scale_consistency(piece: Piece) -> float:
    """The largest share of the notes that one major or natural minor scale holds; drums are left out, nan without others."""
    counts = pitch_classes(piece)
    if not counts.any():
        return float("nan")
    inside = [counts[(np.array(scale) + root) % 12].sum() for scale in (MAJOR, MINOR) for root in range(12)]
    return float(max(inside) / counts.sum())


def groove_consistency(piece: Piece, bar_ticks: int) -> float:
    """1 - the mean share of a bar's ticks where it has an onset and the next bar has none, or the other way round.

    All instruments count, and bars are `bar_ticks` long from tick 0 on, whatever the meter. As in MusPy a piece that ends
    with a bar has an empty one behind it. nan for a piece of one bar.
    """
    bars = piece.end // bar_ticks + 1
    if bars < 2:
        return float("nan")
    grooves = np.zeros((bars, bar_ticks), bool)
    grooves.ravel()[piece.notes["onset"]] = True
    return float(1 - (grooves[1:] != grooves[:-1]).mean())


def pitch_classes(piece: Piece) -> np.ndarray:
    """Notes of each pitch class [12]; drums are left out."""
    return np.bincount(piece.notes["pitch"][piece.notes["program"] != DRUMS] % 12, minlength=12)


HISTOGRAMS = ("pitch class", "duration", "velocity", "instrument")
DURATIONS = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0])  # quarters; where bins end, the last one open


def histograms(pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
    """Shares of the notes of `pieces` in each bin of HISTOGRAMS; all 0 without notes.

    pitch class [12], without drums; duration [9], in the bins of DURATIONS; velocity [16], eight values each; instrument [17],
    General MIDI's 16 families and drums.
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
    """The area that two histograms share, 0 to 1: 1 - their total variation distance."""
    return float(np.minimum(one, other).sum())
