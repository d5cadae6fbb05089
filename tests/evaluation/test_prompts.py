"""Which bars become prompts, and the parts of a prompt."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.evaluation.nmsi import MIN_BARS, exclusion_reason
from sage_jax.evaluation.prompts import choose_prompts, window
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces


def steady(bars: int, first: int = 0) -> Piece:
    """Four quarters per bar, with a pitch that encodes the bar."""
    rows = [(48 * bar + 12 * beat, 0, 30 + bar % 80, 12, 64) for bar in range(first, bars) for beat in range(4)]
    return Piece.from_notes(rows)


def test_the_hop_shrinks_until_there_are_enough_prompts():
    piece = steady(80)
    prompts, hop = choose_prompts(["a"], [piece], 3)
    assert (hop, [prompt.start for prompt in prompts]) == (20, [0, 20, 40])
    prompts, hop = choose_prompts(["a"], [piece], 6)
    assert hop < 20 and len(prompts) == 6
    assert {0, 20, 40} <= {prompt.start for prompt in prompts}
    prompts, hop = choose_prompts(["a"], [piece], 10_000)
    assert hop == 1 and len(prompts) == 80 - 4 - 2 * MIN_BARS + 1


def test_the_parts_of_a_prompt():
    (prompt, _), _ = choose_prompts(["a"], [steady(45, first=5)], 2)
    assert (prompt.start, prompt.prompt_bars, prompt.bars, prompt.end, prompt.length) == (5, 4, 16, 192, 768)
    for part, first, count in ((prompt.prompt, 5, 4), (prompt.reference, 9, 16), (prompt.next_bars, 25, 16)):
        assert part.notes["onset"][0] == 0 and len(part.notes) == 4 * count
        assert part.notes["pitch"][0] == 30 + first
    assert prompt.stop_bar == 20


def test_short_pieces_give_fewer_bars_or_no_prompt():
    assert window("a", steady(24), 0, 4, 16).bars == 10
    assert window("a", steady(12), 0, 4, 16).bars == 4
    assert window("a", steady(11), 0, 4, 16) is None
    gap = steady(40)
    gap = dataclasses.replace(gap, notes=gap.notes[(gap.notes["onset"] < 192) | (gap.notes["onset"] >= 1100)])
    assert window("a", gap, 0, 4, 16) is None  # the reference has too few notes
    with pytest.raises(UserError, match="0 prompt.* two are needed: 12 bars"):
        choose_prompts(["a", "b"], [steady(8), Piece.from_notes([])], 5)


def test_a_surplus_is_subsampled_over_all_pieces():
    prompts, hop = choose_prompts([str(n) for n in range(10)], [steady(80) for _ in range(10)], 10)
    assert hop == 20 and len({prompt.name for prompt in prompts}) == 10


@settings(max_examples=15)
@given(pieces(), st.integers(1, 40))
def test_every_prompt_can_be_scored_and_continued(piece, max_prompts):
    piece = NoteEvents().quantize(piece)
    try:
        prompts, _ = choose_prompts(["a"], [piece], max_prompts)
    except UserError:
        return
    assert len(prompts) <= max_prompts and len({prompt.start for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert not exclusion_reason(prompt.reference, prompt.bars) and not exclusion_reason(prompt.next_bars, prompt.bars)
        notes = prompt.reference.notes.copy()
        notes["onset"] += prompt.end
        whole = prompt.prompt.with_notes(np.concatenate([prompt.prompt.notes, notes]))
        assert np.array_equal(prompt.continuation(whole).notes, prompt.reference.notes)
