"""Which bars become prompts, and what belongs to one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.evaluation.nmsi import LEAST_BARS, why_not
from sage_jax.evaluation.prompts import choose_prompts, window
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece
from tests.music.pieces import pieces


def steady(bars: int, first: int = 0) -> Piece:
    """Four quarters to a bar, the pitch telling the bar."""
    rows = [(48 * bar + 12 * beat, 0, 30 + bar % 80, 12, 64) for bar in range(first, bars) for beat in range(4)]
    return Piece.from_notes(rows)


def test_windows_follow_each_other_until_more_are_wanted():
    piece = steady(80)
    prompts, hop = choose_prompts(["a"], [piece], 3)
    assert (hop, [prompt.start for prompt in prompts]) == (20, [0, 20, 40])
    prompts, hop = choose_prompts(["a"], [piece], 6)
    assert hop < 20 and len(prompts) == 6
    assert {0, 20, 40} <= {prompt.start for prompt in prompts}
    prompts, hop = choose_prompts(["a"], [piece], 10_000)
    assert hop == 1 and len(prompts) == 80 - 4 - 2 * LEAST_BARS + 1


def test_what_a_prompt_holds():
    (prompt, _), _ = choose_prompts(["a"], [steady(45, first=5)], 2)
    assert (prompt.start, prompt.prompt_bars, prompt.bars, prompt.end, prompt.length) == (5, 4, 16, 192, 768)
    for part, first, count in ((prompt.prompt, 5, 4), (prompt.reference, 9, 16), (prompt.later, 25, 16)):
        assert part.notes["onset"][0] == 0 and len(part.notes) == 4 * count
        assert part.notes["pitch"][0] == 30 + first
    assert prompt.stop_bar == 20


def test_short_pieces_give_shorter_tasks_and_too_short_ones_none():
    assert window("a", steady(24), 0, 4, 16).bars == 10
    assert window("a", steady(12), 0, 4, 16).bars == 4
    assert window("a", steady(11), 0, 4, 16) is None
    gap = steady(40)
    gap = dataclasses.replace(gap, notes=gap.notes[(gap.notes["onset"] < 192) | (gap.notes["onset"] >= 1100)])
    assert window("a", gap, 0, 4, 16) is None  # nothing to be compared with
    with pytest.raises(UserError, match="0 prompt.* two are needed: 12 bars"):
        choose_prompts(["a", "b"], [steady(8), Piece.from_notes([])], 5)


def test_more_than_are_wanted_are_thinned_over_all_pieces():
    prompts, hop = choose_prompts([str(n) for n in range(10)], [steady(80) for _ in range(10)], 10)
    assert hop == 20 and len({prompt.name for prompt in prompts}) == 10


@given(pieces(), st.integers(1, 40))
def test_every_prompt_can_be_scored_and_continued(piece, wanted):
    piece = NoteEvents().quantize(piece)
    try:
        prompts, _ = choose_prompts(["a"], [piece], wanted)
    except UserError:
        return
    assert len(prompts) <= wanted and len({prompt.start for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert not why_not(prompt.reference, prompt.bars) and not why_not(prompt.later, prompt.bars)
        notes = prompt.reference.notes.copy()
        notes["onset"] += prompt.end
        whole = dataclasses.replace(prompt.prompt, notes=np.concatenate([prompt.prompt.notes, notes]))
        assert np.array_equal(prompt.continuation(whole).notes, prompt.reference.notes)
