"""The measured sections of a model card, from an evaluation that is made up."""

import dataclasses

from sage_jax.benchmark import model_card as card
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.evaluation.results import Evaluation
from sage_jax.evaluation.task import EvaluationConfig
from tests.weights.test_format import weights

CONFIG = EvaluationConfig("test", 2, 4, 8, 1, 2, 64, 0, SamplingConfig(), False, 0, True, True, 0, True)


def estimate(mean):
    return {"mean": mean, "low": mean - 1, "high": mean + 1, "count": 2, "clusters": 2}


def made_up(config):
    bits = {"bits_per_note": estimate(4.7), "attributes": {"onset": 1.5, "pitch": 3.2}, "notes": 1234}
    rows = [{"system": card.NAME, "compared_with": "loop", "difference": estimate(-2.0)}]
    return Evaluation(
        command="", commit="", versions={}, config=dataclasses.asdict(config), systems={},
        prompts={"count": 2, "pieces": 2, "split_pieces": 9, "hop": 4},
        scores={card.NAME: {"nmsi": estimate(60.0)}, "loop": {"nmsi": estimate(62.0)}},
        differences=rows,
        likelihood={card.NAME: {**bits, "folders": {"lieder": {"bits_per_note": estimate(3.0)}}}},
        syntax={card.NAME: {"invalid": 0}}, notes={}, decoding={}, descriptive_statistics={},
        memorization={card.NAME: {"median": 6.0, "p95": 9.0, "max": 13}, "loop": {"median": 1.0, "p95": 1.0, "max": 1}},
    )  # fmt: skip


def test_the_sections_have_the_numbers_of_the_evaluation(tmp_path, monkeypatch):
    weights().write(tmp_path / "small")
    monkeypatch.setattr(card, "_speed", lambda *_: "## Speed")
    monkeypatch.setattr(card, "evaluate", lambda config, *_, **__: made_up(config))
    prompt, output = tmp_path / "prompt.mid", tmp_path / "out"
    about, speed, bits, continuations = card.model_card(tmp_path / "small", tmp_path, prompt, CONFIG, output, "the command")
    assert (
        about.startswith("## The weights") and "| parameters | " in about and "a moving average, of the best step: 7" in about
    )
    assert speed == "## Speed"
    assert "4.700 (3.700 to 5.700) bits per note over 1,234 notes" in bits and "| lieder | 3.000 (2.000 to 4.000) |" in bits
    for text in (
        "| model | 60.0 (59.0 to 61.0) |",
        "| loop | -2.0 (-3.0 to -1.0) |",
        "top_p 0.9",
        "invalid 0",
        "| model | 6 | 9 | 13 |",
    ):
        assert text in continuations
    assert bits.endswith("`the command`.") and continuations.endswith("`the command`.")
