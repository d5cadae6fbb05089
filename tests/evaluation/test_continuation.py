"""What models and other people's files become: in any batch the same, resumable, and silence where there is nothing."""

import dataclasses
import json

import numpy as np
import pytest

from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.continuation import Decoding, read_candidates, write
from sage_jax.evaluation.prompts import choose_prompts
from sage_jax.music.events import NoteEvents
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import Piece
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


def test_a_batch_of_another_size_writes_the_same(written, generator, tmp_path):
    found = write(generator, PROMPTS, dataclasses.replace(DECODING, batch_size=2), 32, IDENTITY, tmp_path)
    assert found.continuations == written[0].continuations


def test_a_stopped_run_goes_on(written, generator, tmp_path, monkeypatch):
    monkeypatch.setattr("sage_jax.evaluation.continuation.SAVED_ROWS", 1)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done:
            raise Stop

    with pytest.raises(Stop):
        write(generator, PROMPTS, dataclasses.replace(DECODING, batch_size=2), 32, IDENTITY, tmp_path, stop)
    seen = []
    found = write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path, lambda done, total: seen.append(done))
    assert found.continuations == written[0].continuations
    again = write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path)
    assert again.continuations == found.continuations and not again.speed
    # Other settings are another folder, and touch nothing here.
    write(generator, PROMPTS, dataclasses.replace(DECODING, seed=4, max_events=2), 32, IDENTITY, tmp_path)
    assert len(list(tmp_path.glob("*/settings.json"))) == 2
    file = next(tmp_path.glob("*/rows_*.npz"))
    file.write_bytes(b"cut off")
    with pytest.raises(UserError, match="can't be read .* delete it"):
        write(generator, PROMPTS, DECODING, 32, IDENTITY, tmp_path)
        write(generator, PROMPTS, dataclasses.replace(DECODING, seed=4, max_events=2), 32, IDENTITY, tmp_path)


def whole(prompt, reference: Piece) -> Piece:
    notes = reference.notes.copy()
    notes["onset"] += prompt.end
    return dataclasses.replace(prompt.prompt, notes=np.concatenate([prompt.prompt.notes, notes]))


def test_candidates_are_read_by_number(tmp_path):
    for index, prompt in enumerate(PROMPTS):
        save_midi(whole(prompt, prompt.reference), tmp_path / f"{index:04d}.mid")
    found = read_candidates(tmp_path, PROMPTS, 4, True)
    for prompt, takes in zip(PROMPTS, found.continuations, strict=True):
        assert len(takes) == 1
        assert takes[0].notes[["onset", "pitch"]].tolist() == prompt.reference.notes[["onset", "pitch"]].tolist()
    assert not found.failures and not found.notes
    # Without their prompts, which has to be said.
    alone = tmp_path / "alone"
    for index, prompt in enumerate(PROMPTS):
        save_midi(prompt.reference, alone / f"{index:04d}_0.mid")
    assert read_candidates(alone, PROMPTS, 4, False).continuations == found.continuations
    strange = tmp_path / "strange"
    for index in range(3):
        save_midi(Piece.from_notes([(7 * n, 0, 60, 3, 64) for n in range(1, 9)]), strange / f"{index}.mid")
    with pytest.raises(UserError, match="do not begin with the notes of their prompt"):
        read_candidates(strange, PROMPTS, 4, True)


def test_candidates_that_are_missing_or_broken_are_silence_and_said(tmp_path):
    save_midi(whole(PROMPTS[0], PROMPTS[0].reference), tmp_path / "0000_0.mid")
    save_midi(whole(PROMPTS[0], PROMPTS[0].later), tmp_path / "0000_1.mid")
    save_midi(PROMPTS[1].prompt, tmp_path / "0001_0.mid")
    (tmp_path / "0001_1.mid").write_bytes(b"MThd\0\0")
    save_midi(PROMPTS[1].prompt, tmp_path / "0009.mid")
    found = read_candidates(tmp_path, PROMPTS, 4, True)
    assert [len(takes) for takes in found.continuations] == [2, 2, 2]
    assert found.failures == 4 and not len(found.continuations[2][1].notes)
    said = "\n".join(found.notes)
    for part in ("prompts without 2 file(s), counted as silence: 0002", "0001_1.mid", "passed over: 0009.mid"):
        assert part in said
    with pytest.raises(UserError, match="has no file like 0000.mid"):
        read_candidates(tmp_path / "..", PROMPTS, 4, True)
    with pytest.raises(UserError, match="is not a folder"):
        read_candidates(tmp_path / "nowhere", PROMPTS, 4, True)
