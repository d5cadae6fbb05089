"""Candidate files are matched by number; missing and unreadable ones are scored as silence and reported."""


import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.evaluation.candidates import read_candidates
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import Piece
from tests.evaluation.test_generation import PROMPTS


def whole(prompt, reference: Piece) -> Piece:
    notes = reference.notes.copy()
    notes["onset"] += prompt.end
    return prompt.prompt.with_notes(np.concatenate([prompt.prompt.notes, notes]))


def test_candidates_are_read_by_number(tmp_path):
    for index, prompt in enumerate(PROMPTS):
        save_midi(whole(prompt, prompt.reference), tmp_path / f"{index:04d}.mid")
    found = read_candidates(tmp_path, PROMPTS, 4, True)
    for prompt, takes in zip(PROMPTS, found.continuations, strict=True):
        assert len(takes) == 1
        assert takes[0].notes[["onset", "pitch"]].tolist() == prompt.reference.notes[["onset", "pitch"]].tolist()
    assert not found.failures and not found.notes
    # Files without their prompts.
    alone = tmp_path / "alone"
    for index, prompt in enumerate(PROMPTS):
        save_midi(prompt.reference, alone / f"{index:04d}_0.mid")
    assert read_candidates(alone, PROMPTS, 4, False).continuations == found.continuations
    strange = tmp_path / "strange"
    for index in range(3):
        save_midi(Piece.from_notes([(7 * n, 0, 60, 3, 64) for n in range(1, 9)]), strange / f"{index}.mid")
    with pytest.raises(UserError, match="do not begin with the notes of their prompt"):
        read_candidates(strange, PROMPTS, 4, True)


def test_missing_and_unreadable_candidates_are_silence_and_reported(tmp_path):
    save_midi(whole(PROMPTS[0], PROMPTS[0].reference), tmp_path / "0000_0.mid")
    save_midi(whole(PROMPTS[0], PROMPTS[0].next_bars), tmp_path / "0000_1.mid")
    save_midi(PROMPTS[1].prompt, tmp_path / "0001_0.mid")
    (tmp_path / "0001_1.mid").write_bytes(b"MThd\0\0")
    save_midi(PROMPTS[1].prompt, tmp_path / "0009.mid")
    found = read_candidates(tmp_path, PROMPTS, 4, True)
    assert [len(takes) for takes in found.continuations] == [2, 2, 2]
    assert found.failures == 4 and not len(found.continuations[2][1].notes)
    notes = "\n".join(found.notes)
    for part in ("prompts without 2 file(s), scored as silence: 0002", "0001_1.mid", "repeat a sample: 0009.mid"):
        assert part in notes
    with pytest.raises(UserError, match="has no file like 0000.mid"):
        read_candidates(tmp_path / "..", PROMPTS, 4, True)
    with pytest.raises(UserError, match="is not a folder"):
        read_candidates(tmp_path / "nowhere", PROMPTS, 4, True)


def test_repeated_samples_and_files_without_their_prompt_are_reported(tmp_path):
    for index, prompt in enumerate(PROMPTS):
        save_midi(whole(prompt, prompt.reference), tmp_path / f"{index:04d}.mid")
    save_midi(whole(PROMPTS[0], PROMPTS[0].next_bars), tmp_path / "0000_0.mid")
    save_midi(Piece.from_notes([(7 * n + 5, 0, 60, 3, 64) for n in range(9)]), tmp_path / "0001.mid")
    notes = "\n".join(read_candidates(tmp_path, PROMPTS, 4, True).notes)
    assert "repeat a sample: 0000_0.mid" in notes and "1 file(s) do not begin with the notes" in notes
