"""Continuations are reproducible, resumable and complete."""

import dataclasses
import json

import numpy as np
import pytest

from sage_jax.decoding.continuation import Request
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.generation import DecodingConfig, _reopen, generate_continuations
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.notes import METER, Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.evaluation.test_prompts import steady
from tests.models.small import parameters, tiny_config

TOKENIZER = NoteEvents()
PROMPTS, _ = choose_prompts(["a", "b"], [TOKENIZER.quantize(steady(24)), TOKENIZER.quantize(steady(60, first=20))], 3)
DECODING = DecodingConfig(samples=2, batch_size=4, max_events=40, seed=3, sampling=SamplingConfig(top_p=0.9))
IDENTITY = {"model": "tiny"}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_config(), parameters(tiny_config()), TOKENIZER)


@pytest.fixture(scope="module")
def generated(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    return generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, folder), folder


def test_every_prompt_and_sample_has_a_continuation(generated):
    found, folder = generated
    assert [len(samples) for samples in found.continuations] == [2, 2, 2]
    assert found.continuations[0][0] != found.continuations[0][1]
    for prompt, samples in zip(PROMPTS, found.continuations, strict=True):
        for piece in samples:
            assert piece.notes["onset"].max(initial=0) < prompt.bars * 48
    assert found.faults.invalid == found.faults.reversals == found.faults.duplicates == 0
    assert found.faults.notes == sum(len(piece.notes) for samples in found.continuations for piece in samples) > 0
    assert 0 < found.speed["rows_in_use"] <= 1 and found.speed["events_per_second"] > 0
    (settings,) = folder.glob("*/settings.json")
    assert json.loads(settings.read_text())["model"] == "tiny"


def test_continuations_are_reproducible_by_seed(generated, generator, tmp_path):
    again = generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path)
    assert again.continuations == generated[0].continuations
    other_seed = dataclasses.replace(DECODING, seed=4)
    other = generate_continuations(generator, PROMPTS, other_seed, 32, IDENTITY, tmp_path)
    assert other.continuations != again.continuations


def test_a_stopped_run_resumes_with_the_same_result(generated, generator, tmp_path, monkeypatch):
    monkeypatch.setattr("sage_jax.evaluation.generation.BATCHES_SAVED", 1)
    whole = generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(done, total):
        if done > 4:
            raise Stop

    with pytest.raises(Stop):
        generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped", stop)
    (first,) = (tmp_path / "stopped").glob("*/rows_*.npz")
    saved = first.stat().st_mtime_ns
    seen = []
    count = lambda done, total: seen.append(done)
    found = generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped", count)
    assert found.continuations == whole.continuations and found.speed
    assert first.stat().st_mtime_ns == saved and seen[0] == 4 and seen[-1] == 6
    again = generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped")
    assert again.continuations == found.continuations and not again.speed
    for damage in (b"cut off", b"PK", first.read_bytes()[:200], b""):
        first.write_bytes(damage)
        with pytest.raises(UserError, match="can't be read .* delete it"):
            generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped")
    first.unlink()
    again = generate_continuations(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped")
    assert again.continuations == whole.continuations


def test_cut_continuations_are_reported(generator, tmp_path):
    found = generate_continuations(generator, PROMPTS, dataclasses.replace(DECODING, max_events=2), 32, IDENTITY, tmp_path)
    assert "were cut at max_events = 2" in found.notes[0]


def test_long_bars_give_no_false_duplicates(generator, tmp_path):
    notes = [(60 * bar + 12 * beat, 0, 60, 6, 64) for bar in range(40) for beat in range(5)]
    piece = TOKENIZER.quantize(Piece.from_notes(notes, meter=(5, 4)))
    prompts, _ = choose_prompts(["a"], [piece], 2)
    found = generate_continuations(generator, prompts, dataclasses.replace(DECODING, max_events=80), 32, IDENTITY, tmp_path)
    assert found.faults.duplicates == found.faults.reversals == found.faults.invalid == 0
    assert found.faults.notes == sum(len(piece.notes) for samples in found.continuations for piece in samples)


def test_rows_with_shorter_bars_continue_to_the_full_length():
    """A row in 2/4 that stopped at its last bar, for a prompt in 4/4."""
    prompt = PROMPTS[0]
    half = dataclasses.replace(prompt.prompt, meters=np.array([(0, 4, 4), (prompt.end, 2, 4)], METER))
    row = Request(0, TOKENIZER.encode(half)[:-1], 4, prompt.stop_bar, drawn=3, finished=True)
    _reopen(TOKENIZER, row, prompt, 40)
    assert not row.finished and row.stop_bar == prompt.prompt_bars + 2 * prompt.bars
    whole = Request(0, TOKENIZER.encode(prompt.prompt)[:-1], 4, prompt.stop_bar, drawn=3, finished=True)
    _reopen(TOKENIZER, whole, prompt, 40)
    assert whole.finished and whole.stop_bar == prompt.stop_bar
