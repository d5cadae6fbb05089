"""Entropy, scale and groove consistency equal MusPy's on real files, and hand-computed values."""

import math

import numpy as np
import pytest

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.evaluation.musicality import (
    HISTOGRAMS,
    groove_consistency,
    histograms,
    overlap,
    pitch_class_entropy,
    scale_consistency,
)
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, Piece

PATHS = sorted(EMBEDDED.rglob("*.mid"))[::6]


def as_muspy(piece: Piece):
    import muspy  # slow to import, and needed by one test alone

    tracks = []
    for program in np.unique(piece.notes["program"]).tolist():
        notes = [muspy.Note(onset, pitch, duration, velocity) for onset, _, pitch, duration, velocity, _ in
                 piece.notes[piece.notes["program"] == program].tolist()]  # fmt: skip
        tracks.append(muspy.Track(0 if program == DRUMS else program, program == DRUMS, notes=notes))
    return muspy.Music(resolution=piece.ticks_per_quarter, tracks=tracks)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_measures_equal_muspys(path):
    import muspy

    piece = read_midi(path)
    music, bar = as_muspy(piece), 4 * piece.ticks_per_quarter
    assert pitch_class_entropy(piece) == pytest.approx(muspy.pitch_class_entropy(music))
    assert scale_consistency(piece) == pytest.approx(muspy.scale_consistency(music))
    assert groove_consistency(piece, bar) == pytest.approx(muspy.groove_consistency(music, bar))


def test_hand_computed_values():
    scale = Piece.from_notes([(12 * n, 0, pitch, 12, 64) for n, pitch in enumerate((60, 62, 64, 65, 67, 69, 71, 61))])
    assert pitch_class_entropy(scale) == pytest.approx(3)
    assert scale_consistency(scale) == pytest.approx(7 / 8)
    # Two equal bars, and the empty bar that MusPy counts after a full last bar.
    assert groove_consistency(scale, 48) == pytest.approx(1 - (0 + 4 / 48) / 2)


def test_undefined_measures_are_nan():
    drums = Piece.from_notes([(0, DRUMS, 36, 6, 64)])
    for value in (pitch_class_entropy(drums), scale_consistency(drums), groove_consistency(drums, 48)):
        assert math.isnan(value)


def test_histograms_are_normalized_and_overlap_is_their_common_area():
    piece = Piece.from_notes([(0, 0, 60, 3, 8), (0, 0, 61, 4, 8), (0, 40, 60, 500, 127), (0, DRUMS, 36, 12, 1)])
    counts = histograms([piece])
    assert set(counts) == set(HISTOGRAMS) and all(count.sum() == pytest.approx(1) for count in counts.values())
    assert counts["pitch class"][0] == pytest.approx(2 / 3)
    assert counts["duration"].tolist() == [0.25, 0.25, 0, 0.25, 0, 0, 0, 0, 0.25]
    assert counts["instrument"][[0, 5, 16]].tolist() == [0.5, 0.25, 0.25]
    silent = histograms([Piece.from_notes([])])
    assert all(not count.any() for count in silent.values())
    assert overlap(counts["velocity"], counts["velocity"]) == pytest.approx(1)
    assert overlap(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == pytest.approx(0.25)
