"""Continuations are reproducible, resumable and complete."""

import dataclasses
import json

import numpy as np
import pytest

from sage_jax.decoding.engine import Engine
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.generation import DecodingConfig, generate_continuations
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.notes import METER, Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.evaluation.test_prompts import steady
from tests.models.small import parameters, tiny_config

TOKENIZER = NoteEvents()
PROMPTS, _ = choose_prompts(["a", "b"], [TOKENIZER.quantize(steady(24)), TOKENIZER.quantize(steady(60, first=20))], 3)
DECODING = DecodingConfig(samples=2, max_events=40, seed=3, sampling=SamplingConfig(top_p=0.9))
IDENTITY = {"model": "tiny"}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_config(), parameters(tiny_config()), TOKENIZER, context=32, rows=4, chunk=8)


@pytest.fixture(scope="module")
def generated(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    return generate_continuations(engine, PROMPTS, DECODING, IDENTITY, folder), folder


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


def test_continuations_are_reproducible_by_seed(generated, engine, tmp_path):
    again = generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path)
    assert again.continuations == generated[0].continuations
    other_seed = dataclasses.replace(DECODING, seed=4)
    other = generate_continuations(engine, PROMPTS, other_seed, IDENTITY, tmp_path)
    assert other.continuations != again.continuations


def test_a_stopped_run_resumes_with_the_same_result(generated, engine, tmp_path):
    whole = generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(done, total):
        if done > 4:
            raise Stop

    with pytest.raises(Stop):
        generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path / "stopped", stop)
    (first,) = (tmp_path / "stopped").glob("*/rows_*.npz")
    saved = first.stat().st_mtime_ns
    seen = []
    count = lambda done, total: seen.append(done)
    found = generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path / "stopped", count)
    assert found.continuations == whole.continuations and found.speed
    assert first.stat().st_mtime_ns == saved and seen[0] == 4 and seen[-1] == 6
    again = generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path / "stopped")
    assert again.continuations == found.continuations and not again.speed
    for damage in (b"cut off", b"PK", first.read_bytes()[:200], b""):
        first.write_bytes(damage)
        with pytest.raises(UserError, match="can't be read .* delete it"):
            generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path / "stopped")
    first.unlink()
    again = generate_continuations(engine, PROMPTS, DECODING, IDENTITY, tmp_path / "stopped")
    assert again.continuations == whole.continuations


def test_cut_continuations_are_reported(engine, tmp_path):
    found = generate_continuations(engine, PROMPTS, dataclasses.replace(DECODING, max_events=2), IDENTITY, tmp_path)
    assert "were cut at max_events = 2" in found.notes[0]


def test_long_bars_give_no_false_duplicates(engine, tmp_path):
    notes = [(60 * bar + 12 * beat, 0, 60, 6, 64) for bar in range(40) for beat in range(5)]
    piece = TOKENIZER.quantize(Piece.from_notes(notes, meter=(5, 4)))
    prompts, _ = choose_prompts(["a"], [piece], 2)
    found = generate_continuations(engine, prompts, dataclasses.replace(DECODING, max_events=80), IDENTITY, tmp_path)
    assert found.faults.duplicates == found.faults.reversals == found.faults.invalid == 0
    assert found.faults.notes == sum(len(piece.notes) for samples in found.continuations for piece in samples)


def test_rows_end_at_the_prompts_tick_whatever_their_meters(engine, tmp_path):
    """A prompt in 2/4 whose music goes on in 4/4: a bound in bars would stop at half of it."""
    prompt = PROMPTS[0]
    half = dataclasses.replace(prompt, prompt=dataclasses.replace(prompt.prompt, meters=np.array([(0, 2, 4)], METER)))
    found = generate_continuations(engine, [half], dataclasses.replace(DECODING, max_events=500), IDENTITY, tmp_path)
    assert not found.notes and found.faults.invalid == 0
    assert all(piece.notes["onset"].max() >= prompt.length // 2 for piece in found.continuations[0])


def test_the_number_of_rows_changes_nothing(engine, generated, tmp_path):
    """Rows that wait, join and leave: the continuations are those of a batch of four, with windows that move."""
    two = Engine(engine.config, engine.params, TOKENIZER, context=32, rows=2, chunk=8)
    assert generate_continuations(two, PROMPTS, DECODING, IDENTITY, tmp_path).continuations == generated[0].continuations
