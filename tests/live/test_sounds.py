"""The samples: levels, loops that hold without a click, and the cache."""

import asyncio
import io
import json
import wave

import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.live import sounds
from sage_jax.live.loops import LOOP_END, LOOP_START, SEARCH, looped
from sage_jax.live.sounds import SoundStore, make_samples, pitches_of
from sage_jax.rendering import audio
from sage_jax.rendering.audio import AudioUnavailable

RATE = 48_000


def tone(frequency: float, decay: float = 0.0, seconds: float = 6.0) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * frequency * times) * np.exp(-decay * times)).astype(np.float32)


def held(sample: np.ndarray, loop: tuple[float, float], seconds: float) -> np.ndarray:
    """What a player of the loop gives."""
    start, end = (round(each * RATE) for each in loop)
    repeats = -(-round(seconds * RATE) // (end - start))
    return np.concatenate([sample[:end], *[sample[start:end]] * repeats])


@pytest.mark.parametrize("frequency", [55.0, 261.63, 1046.5])
@pytest.mark.parametrize("decay", [0.0, 0.15])
def test_a_loop_goes_on_without_a_click_or_a_dip(frequency, decay):
    sample, loop = looped(tone(frequency, decay), RATE)
    assert loop is not None and loop[1] == LOOP_END and abs(loop[0] - LOOP_START) <= SEARCH
    sound = held(sample, loop, 8)
    blocks = np.sqrt(np.square(sound[: len(sound) // 4800 * 4800].reshape(-1, 4800)).mean(axis=1))[round(LOOP_START * 10) :]
    assert blocks.max() < 1.15 * blocks.min()
    step = np.abs(np.diff(sound, 2)).max()
    assert step < 1.1 * np.abs(np.diff(tone(frequency), 2)).max()


def test_what_dies_away_is_not_looped():
    sample = tone(220, 2)
    same, loop = looped(sample, RATE)
    assert loop is None and same is sample
    assert looped(sample[:RATE], RATE)[1] is None


@pytest.mark.process
@pytest.mark.parametrize("program", [0, 48, 128])
def test_samples_of_the_soundfont(program, monkeypatch):
    few = range(48, 61, 4) if program < 128 else range(35, 43)
    monkeypatch.setattr(sounds, "pitches_of", lambda _: few)
    data, found = make_samples(program)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert [note["pitch"] for note in found["notes"]] == list(few)
    assert np.abs(sound).max() == pytest.approx(sounds.PEAK, abs=1e-3) and 0.01 < found["gain"] < 1
    for note in found["notes"]:
        start, frames = round(note["start"] * RATE), round(note["seconds"] * RATE)
        sample = sound[start : start + frames]
        assert np.abs(sample[: RATE // 5]).max() > 0.05 and np.abs(sample).max() < 0.95, note
        assert (note["loop"] is not None) == (program == 48)
        if note["loop"]:
            low, high = note["loop"]
            assert note["start"] < low < high <= note["start"] + note["seconds"] + 1e-6
            level = np.sqrt(np.mean(held(sample, (low - note["start"], high - note["start"]), 10)[-RATE:] ** 2))
            assert level > 0.02, "a held note is silent after ten seconds"
        else:
            assert np.abs(sample[-10:]).max() < 1e-3, "it ends with a click"


def test_every_program_has_pitches_within_a_playable_distance():
    for program in (0, 35, 73, 128):
        pitches = list(pitches_of(program))
        assert max(np.diff(pitches)) <= 4 and pitches[0] <= 27
    assert len(pitches_of(128)) == 61


def test_samples_are_made_once_and_kept(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(sounds, "make_samples", lambda program: made.append(program) or (b"RIFF", {"gain": 1, "notes": []}))
    store = SoundStore(tmp_path)
    for _ in range(2):
        assert asyncio.run(store.read(5, "wav")) == b"RIFF"
        assert json.loads(asyncio.run(store.read(5, "json"))) == {"gain": 1, "notes": []}
    assert made == [5] and SoundStore(tmp_path).make(5, "wav") == b"RIFF" and made == [5]
    monkeypatch.setattr(sounds, "MAX_BYTES", 6)
    store.make(6, "wav")
    assert sorted(path.name for path in store.folder.iterdir()) == ["6.json", "6.wav"]
    # A folder that can't be written.
    (tmp_path / "file").write_text("")
    store = SoundStore(tmp_path / "file")
    assert store.make(7, "wav") == b"RIFF" and store.make(7, "wav") == b"RIFF" and made == [5, 6, 7]
    store.close()


def test_without_a_synthesiser_there_are_no_sounds(tmp_path, monkeypatch):
    monkeypatch.setattr(audio.importlib.util, "find_spec", lambda name: None)
    store = SoundStore(tmp_path)
    assert store.version == ""
    with pytest.raises(AudioUnavailable, match="audio"):
        store.make(0, "wav")
    assert issubclass(AudioUnavailable, UserError)
