"""What models write behind the prompts: the same again, resumably, and whole."""

import dataclasses
import json

import numpy as np
import pytest

from sage_jax.decoding.continuation import Row
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.continuation import Decoding, _reopen, write
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import METER, Piece
from tests.evaluation.test_prompts import steady
from tests.models.small import parameters, tiny_config

TOKENIZER = NoteEvents()
PROMPTS, _ = choose_prompts(["a", "b"], [TOKENIZER.quantize(steady(24)), TOKENIZER.quantize(steady(60, first=20))], 3)
DECODING = Decoding(samples=2, batch_size=4, max_events=40, seed=3, sampling=SamplingConfig(top_p=0.9))
IDENTITY = {"model": "tiny"}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_config(), parameters(tiny_config()), TOKENIZER)


@pytest.fixture(scope="module")
def written(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    return write(generator, PROMPTS, DECODING, 32, IDENTITY, folder), folder


def test_continuations_come_for_every_prompt_and_sample(written):
    found, folder = written
    assert [len(takes) for takes in found.continuations] == [2, 2, 2]
    assert found.continuations[0][0] != found.continuations[0][1]
    for prompt, takes in zip(PROMPTS, found.continuations, strict=True):
        for piece in takes:
            assert piece.notes["onset"].max(initial=0) < prompt.bars * 48
    assert found.faults.invalid == found.faults.reversals == found.faults.duplicates == 0
    assert found.faults.notes == sum(len(piece.notes) for takes in found.continuations for piece in takes) > 0
    assert 0 < found.speed["rows_in_use"] <= 1 and found.speed["events_per_second"] > 0
    (settings,) = folder.glob("*/settings.json")
    assert json.loads(settings.read_text())["model"] == "tiny"


def test_rows_of_one_seed_are_the_same_again_and_of_another_are_not(written, generator, tmp_path):
    again = write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path)
    assert again.continuations == written[0].continuations
    other = write(generator, PROMPTS, dataclasses.replace(DECODING, seed=4), 32, IDENTITY, tmp_path)
    assert other.continuations != again.continuations


def test_a_stopped_run_goes_on_to_the_same_end(written, generator, tmp_path, monkeypatch):
    monkeypatch.setattr("sage_jax.evaluation.continuation.BATCHES_SAVED", 1)
    whole = write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(done, total):
        if done > 4:
            raise Stop

    with pytest.raises(Stop):
        write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped", stop)
    (first,) = (tmp_path / "stopped").glob("*/rows_*.npz")
    saved = first.stat().st_mtime_ns
    seen = []
    found = write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped", lambda done, total: seen.append(done))
    assert found.continuations == whole.continuations and found.speed
    assert first.stat().st_mtime_ns == saved and seen[0] == 4 and seen[-1] == 6
    again = write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped")
    assert again.continuations == found.continuations and not again.speed
    for damage in (b"cut off", b"PK", first.read_bytes()[:200], b""):
        first.write_bytes(damage)
        with pytest.raises(UserError, match="can't be read .* delete it"):
            write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped")
    first.unlink()
    assert write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path / "stopped").continuations == whole.continuations


def test_what_is_cut_is_said(generator, tmp_path):
    found = write(generator, PROMPTS, dataclasses.replace(DECODING, max_events=2), 32, IDENTITY, tmp_path)
    assert "were cut at max_events = 2" in found.notes[0]


def test_long_bars_bring_no_false_duplicates(generator, tmp_path):
    notes = [(60 * bar + 12 * beat, 0, 60, 6, 64) for bar in range(40) for beat in range(5)]
    piece = TOKENIZER.quantize(Piece.from_notes(notes, meter=(5, 4)))
    prompts, _ = choose_prompts(["a"], [piece], 2)
    found = write(generator, prompts, dataclasses.replace(DECODING, max_events=80), 32, IDENTITY, tmp_path)
    assert found.faults.duplicates == found.faults.reversals == found.faults.invalid == 0
    assert found.faults.notes == sum(len(piece.notes) for takes in found.continuations for piece in takes)


def test_a_model_that_turns_to_shorter_bars_goes_on():
    """A row that stopped at its last bar, but in 2/4 where the prompt is in 4/4."""
    prompt = PROMPTS[0]
    half = dataclasses.replace(prompt.prompt, meters=np.array([(0, 4, 4), (prompt.end, 2, 4)], METER))
    row = Row(0, TOKENIZER.encode(half)[:-1], 4, prompt.stop_bar, drawn=3, finished=True)
    _reopen(TOKENIZER, row, prompt, 40)
    assert not row.finished and row.stop_bar == prompt.prompt_bars + 2 * prompt.bars
    whole = Row(0, TOKENIZER.encode(prompt.prompt)[:-1], 4, prompt.stop_bar, drawn=3, finished=True)
    _reopen(TOKENIZER, whole, prompt, 40)
    assert whole.finished and whole.stop_bar == prompt.stop_bar
