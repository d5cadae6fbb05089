"""The page of examples."""

import json

import pytest

from sage_jax.errors import UserError
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import Piece
from sage_jax.rendering import examples
from sage_jax.rendering.audio import WavStats


def test_a_page_has_every_system_of_every_prompt_with_its_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "render_mp3", lambda piece, path: WavStats(4.0, 0.5, 0.08, 0.25))
    evaluation, page = tmp_path / "evaluation", tmp_path / "page.md"
    piece = Piece.from_notes([(12 * beat, 0, 60 + beat, 12, 64) for beat in range(8)], qpm=120)
    for system in ("model", "truth"):
        save_midi(piece, evaluation / "midi" / system / "0003.mid")
    prompt = {
        "file": "0003.mid",
        "piece": "a/b.mid",
        "first_bar": 4,
        "prompt_bars": 1,
        "prompt_quarters": 4.0,
        "bars_to_write": 1,
    }
    with pytest.raises(UserError, match=r"prompts\.json can't be read \(FileNotFoundError\); give a folder of launch.evaluate"):
        examples.write_examples(evaluation, ["model"], page, "# Examples")
    (evaluation / "prompts").mkdir()
    (evaluation / "prompts" / "prompts.json").write_text(json.dumps([prompt]))
    rows = examples.write_examples(evaluation, ["model", "truth"], page, "# Examples")
    assert [(row["system"], row["notes_per_second"]) for row in rows] == [("model", 2.0), ("truth", 2.0)]
    text = page.read_text()
    assert text.startswith("# Examples\n\n## a/b.mid\n\nBars of the prompt: 1, from bar 5. Bars after it: 1.")
    assert "![truth](page/0003-truth.png)" in text and "| 4 | 0.50 | 0.080 | 25% | 2.0 |" in text
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == [
        "0003-model.mid", "0003-model.png", "0003-truth.mid", "0003-truth.png",
    ]  # fmt: skip
    with pytest.raises(UserError, match="there are no examples of loop in .*; known are model, truth"):
        examples.write_examples(evaluation, ["loop"], page, "# Examples")
