"""NMSI equals its definition, handles edge cases, and orders perturbations as expected."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.evaluation.nmsi import PARTS, exclusion_reason, score
from sage_jax.evaluation.prompts import empty
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece
from tests.evaluation.fixed import changed, doubled, fixed_prompts, shifted, thinned, transposed
from tests.evaluation.naive import naive_parts
from tests.music.pieces import pieces


def melody(pitches=(60, 62, 64, 65, 67, 69, 71, 72), bars: int = 4, program: int = 0) -> Piece:
    """Eighths that cycle through `pitches` for `bars` bars."""
    return Piece.from_notes([(6 * n, program, pitches[n % len(pitches)], 6, 64) for n in range(8 * bars)])


def parts(reference: Piece, candidate: Piece, bars: int | None = None) -> dict[str, float]:
    scores = score([reference], [candidate], None if bars is None else [bars])
    return {name: float(getattr(scores, name)[0]) for name in (*PARTS, "nmsi", "nmsi_max")}


@settings(max_examples=60)
@given(st.lists(st.tuples(pieces(), pieces(), st.integers(4, 16)), min_size=1, max_size=4))
def test_a_batch_equals_the_direct_definition(triples):
    triples = [(r, g, bars) for r, g, bars in triples if not exclusion_reason(r, bars)]
    if not triples:
        return
    references, candidates, bars = zip(*triples, strict=True)
    scores = score(references, candidates, bars)
    for index, (reference, candidate, count) in enumerate(triples):
        expected = naive_parts(reference, candidate, count)
        for name in PARTS:
            found = getattr(scores, name)[index]
            if np.isnan(found):
                assert scores.drums_only[index] and name in ("chroma", "ssm")
            else:
                assert found == pytest.approx(expected[name], abs=2e-6), name
        shown = PARTS if not scores.drums_only[index] else ("groove", "density")
        assert scores.nmsi[index] == pytest.approx(100 * np.mean([expected[name] for name in shown]), abs=1e-3)


def test_a_copy_scores_100_on_any_grid():
    for prompt in fixed_prompts():
        found = parts(prompt.reference, prompt.reference, prompt.bars)
        assert all(found[name] == pytest.approx(1) for name in PARTS)
        assert found["nmsi"] == pytest.approx(100) and found["nmsi_max"] == pytest.approx(100)
    fine = Piece.from_notes([(24 * n, 0, 60 + n % 8, 24, 64) for n in range(32)], ticks_per_quarter=48)
    coarse = Piece.from_notes([(6 * n, 0, 60 + n % 8, 6, 64) for n in range(32)], ticks_per_quarter=12)
    assert parts(coarse, fine)["nmsi"] == pytest.approx(100)


def test_perturbations_have_the_expected_scores():
    """Mean scores over twelve pieces lie in the ranges that were measured over 472 pieces."""
    prompts = fixed_prompts()
    bars = [prompt.bars for prompt in prompts]
    references = [prompt.reference for prompt in prompts]
    rng = np.random.default_rng(0)
    is_drum = lambda piece: piece.notes["program"] == DRUMS
    made = {
        "semitone": [transposed(piece, 1) for piece in references],
        "fifth": [transposed(piece, 7) for piece in references],
        "sixteenth late": [shifted(piece, 3) for piece in references],
        "eighth late": [shifted(piece, 6) for piece in references],
        "thinned": [thinned(piece) for piece in references],
        "doubled": [doubled(piece) for piece in references],
        "other pitches": [
            changed(piece, pitch=np.where(is_drum(piece), piece.notes["pitch"], rng.integers(36, 84, len(piece.notes))))
            for piece in references
        ],
        "other piece": [*references[1:], references[0]],
        "silence": [empty(piece) for piece in references],
    }
    found = {}
    for name, candidates in made.items():
        scores = score(references, candidates, bars)
        found[name] = {part: float(np.nanmean(getattr(scores, part))) for part in (*PARTS, "nmsi")}
    for name in ("semitone", "fifth"):
        assert all(found[name][part] == pytest.approx(1, abs=1e-6) for part in ("groove", "ssm", "density"))
    assert found["semitone"]["chroma"] < 0.2 < found["fifth"]["chroma"] < 0.6
    assert found["sixteenth late"]["groove"] < found["eighth late"]["groove"] < 0.9
    assert found["sixteenth late"]["chroma"] > 0.95 and found["sixteenth late"]["density"] > 0.75
    assert 0.4 < found["thinned"]["density"] < 0.55 and 0.75 < found["thinned"]["chroma"] < 0.97
    assert found["doubled"]["chroma"] > 0.99 and found["doubled"]["ssm"] > 0.96
    assert 0.48 < found["doubled"]["density"] < 0.62
    assert found["other pitches"]["groove"] > 0.97 and found["other pitches"]["chroma"] < 0.6
    assert found["silence"]["chroma"] == found["silence"]["groove"] == found["silence"]["density"] == 0
    order = ["silence", "other piece", "thinned", "doubled"]
    assert [found[name]["nmsi"] for name in order] == sorted(found[name]["nmsi"] for name in order)
    assert 5 < found["silence"]["nmsi"] < 25 and 35 < found["other piece"]["nmsi"] < 65
    assert 70 < found["thinned"]["nmsi"] < 85 < found["doubled"]["nmsi"] < 92


def test_silence_in_one_piece_or_in_both():
    piece = melody()
    silent = parts(piece, empty(piece))
    assert (silent["chroma"], silent["groove"], silent["density"]) == (0, 0, 0)
    # Both are silent in bars 2 and 3: those bars are excluded from the means, and count as equal in density.
    gap = dataclasses.replace(piece, notes=piece.notes[(piece.notes["onset"] < 48) | (piece.notes["onset"] >= 144)])
    assert parts(gap, gap, 4)["nmsi"] == pytest.approx(100)
    # Notes where the reference is silent lower the score.
    assert parts(gap, piece, 4)["groove"] == pytest.approx(0.5)


def test_references_with_only_drums():
    drums, tune = melody(program=DRUMS), melody()
    scores = score([drums, tune], [drums, drums], [4, 4])
    assert scores.drums_only.tolist() == [True, False]
    assert np.isnan(scores.chroma[0]) and np.isnan(scores.ssm[0])
    assert scores.nmsi[0] == pytest.approx(100)
    # A candidate with only drums: groove and density are 1, chroma is 0.
    assert scores.chroma[1] == 0 and scores.groove[1] == pytest.approx(1) and scores.density[1] == pytest.approx(1)
    assert scores.nmsi[1] < 75


def test_short_candidates_count_as_silence_and_long_ones_are_cut():
    piece, longer = melody(bars=8), melody(bars=12)
    assert parts(piece, longer)["nmsi"] == pytest.approx(100)
    half = parts(piece, melody(bars=4))
    assert all(half[name] == pytest.approx(0.5) for name in ("groove", "chroma", "density"))
    held = changed(longer, duration=np.full(len(longer.notes), 10_000))
    assert 0 <= parts(piece, held)["ssm"] < 1


def test_the_references_bars_apply_to_both():
    meters = np.array([(0, 4, 4), (96, 3, 4), (204, 7, 8)], METER)
    rng = np.random.default_rng(1)
    rows = [(int(tick), 0, int(pitch), 6, 64) for tick, pitch in zip(range(0, 330, 6), rng.integers(48, 72, 55), strict=True)]
    reference = dataclasses.replace(Piece.from_notes(rows), meters=meters)
    plain = Piece.from_notes(rows)
    assert parts(reference, plain)["nmsi"] == pytest.approx(100)
    fast = dataclasses.replace(plain, tempos=np.array([(0, 240.0)], TEMPO))
    assert parts(reference, fast)["nmsi"] == pytest.approx(100)
    assert parts(reference, shifted(plain, 3))["groove"] < 0.1


def test_equal_notes_count_once_as_the_longest():
    piece = melody()
    again = changed(piece, program=np.full(len(piece.notes), 40), duration=np.full(len(piece.notes), 3))
    twice = piece.with_notes(np.concatenate([piece.notes, again.notes]))
    assert parts(piece, twice)["nmsi"] == pytest.approx(100)


def test_nmsi_max_ignores_the_order_of_bars():
    bars = [[60, 64, 67, 60, 64, 67, 60, 64], [61, 63, 66, 68, 61, 63, 66, 68], [62] * 8, [65, 69, 65, 69, 65, 69, 65, 69]]
    rows = lambda order: [(48 * place + 6 * n, 0, bars[bar][n], 6, 64) for place, bar in enumerate(order) for n in range(8)]
    straight, turned = Piece.from_notes(rows([0, 1, 2, 3])), Piece.from_notes(rows([3, 2, 1, 0]))
    found = parts(straight, turned)
    assert found["nmsi_max"] > found["nmsi"] + 20


def test_unscorable_input_is_named():
    piece = melody()
    with pytest.raises(ValueError, match="reference 1 has 3 bars, fewer than 4"):
        score([piece, melody(bars=3)], [piece, piece])
    few = dataclasses.replace(piece, notes=piece.notes[::8])
    with pytest.raises(ValueError, match="reference 0 has 4 notes, fewer than 8"):
        score([few], [piece], [4])
    with pytest.raises(ValueError, match="do not pair up"):
        score([piece], [piece, piece])
    with pytest.raises(ValueError, match="nothing to score"):
        score([], [])
