"""A direct implementation of NMSI-b1, bar by bar and note by note, to test the vectorized one."""

import itertools
import math
from fractions import Fraction

from sage_jax.music.notes import DRUMS, Piece


def naive_parts(reference: Piece, candidate: Piece, bars: int) -> dict[str, float]:
    """chroma, groove, ssm and density of one pair."""
    lines = sorted({_step(int(reference.bars.start([bar])[0]), reference) for bar in range(bars + 1)})
    true, made = (_notes(piece, lines[-1]) for piece in (reference, candidate))
    spans = list(itertools.pairwise(lines))
    beats = [(start, min(start + 4, high)) for low, high in spans for start in range(low, high, 4)]
    return {
        "chroma": _mean_cosine([(_chroma(true, *span), _chroma(made, *span)) for span in spans]),
        "groove": _mean_cosine([(_groove(true, *span), _groove(made, *span)) for span in spans]),
        "ssm": 1 - _ssm_distance([_sounding(true, *beat) for beat in beats], [_sounding(made, *beat) for beat in beats]),
        "density": 1 - _density_distance([_count(true, *beat) for beat in beats], [_count(made, *beat) for beat in beats]),
    }


def _step(ticks: int, piece: Piece) -> int:
    return math.floor(Fraction(4 * ticks, piece.ticks_per_quarter) + Fraction(1, 2))


def _notes(piece: Piece, end: int) -> dict[tuple[int, int, bool], int]:
    """Maps (onset, pitch, drum) to the end of the longest such note."""
    notes = {}
    for onset, program, pitch, duration, *_ in piece.notes.tolist():
        start = _step(onset, piece)
        if start < end:
            key = (start, pitch, program == DRUMS)
            notes[key] = max(notes.get(key, 0), min(start + max(_step(duration, piece), 1), end))
    return notes


def _chroma(notes, low, high):
    counts = [0] * 12
    for onset, pitch, drum in notes:
        if not drum and low <= onset < high:
            counts[pitch % 12] += 1
    return counts


def _groove(notes, low, high):
    counts = [0] * (high - low)
    for onset, _, _ in notes:
        if low <= onset < high:
            counts[onset - low] += 1
    return counts


def _count(notes, low, high):
    return sum(low <= onset < high for onset, _, _ in notes)


def _sounding(notes, low, high):
    counts = [0] * 12
    for (onset, pitch, drum), end in notes.items():
        if not drum:
            counts[pitch % 12] += max(0, min(end, high) - max(onset, low))
    return counts


def _cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def _mean_cosine(pairs):
    counted = [_cosine(a, b) for a, b in pairs if any(a) or any(b)]
    return sum(counted) / len(counted) if counted else 1.0


def _ssm_distance(true, made):
    places = [(i, j) for i in range(len(true)) for j in range(len(true)) if i != j]
    return sum(abs(_cosine(true[i], true[j]) - _cosine(made[i], made[j])) for i, j in places) / len(places)


def _density_distance(true, made):
    most = sum(max(a, b) for a, b in zip(true, made, strict=True))
    return sum(abs(a - b) for a, b in zip(true, made, strict=True)) / most if most else 0.0
