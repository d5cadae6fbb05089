"""Audio: levels, length, pitch and tempo of recordings, many instruments, clipping and missing software."""

import dataclasses
import sys
import wave

import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, TEMPO, Piece
from sage_jax.rendering import audio
from sage_jax.rendering.audio import AudioUnavailable, render_wav, synthesise

BAR = 48


@pytest.fixture(autouse=True)
def synthesiser(request):
    if "without" not in request.node.name:
        pytest.importorskip("midirenderer")


def read(path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, audio.SAMPLE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32768


def test_recording_is_audible_and_as_long_as_the_music(tmp_path):
    piece = Piece.from_notes([(12 * i, 0, 60 + i % 12, 12, 80) for i in range(16)], qpm=90)
    stats = render_wav(piece, tmp_path / "out.wav")
    samples = read(tmp_path / "out.wav")
    seconds = float(piece.seconds(piece.end))
    assert stats.seconds == pytest.approx(len(samples) / audio.SAMPLE_RATE)
    assert seconds < stats.seconds < seconds + audio.RELEASE + audio.TAIL
    assert np.abs(samples).max() == pytest.approx(audio.PEAK, abs=1e-3) == stats.peak
    assert stats.rms == pytest.approx(np.sqrt((samples**2).mean()), rel=1e-3) and stats.rms > 0.03
    assert stats.silence < 0.2
    assert np.abs(samples[-480:]).max() < 1e-3, "the end is faded, not cut"
    assert [file.name for file in tmp_path.iterdir()] == ["out.wav"]


def test_pitch_and_tempo_map(tmp_path):
    """A5 at 120 bpm, then A4 at 60 bpm: each has the written onset and pitch."""
    steady = Piece.from_notes([(0, 73, 81, BAR, 100), (BAR, 73, 69, BAR, 100)])
    piece = dataclasses.replace(steady, tempos=np.array([(0, 120.0), (BAR, 60.0)], TEMPO))
    render_wav(piece, tmp_path / "out.wav")
    mono = read(tmp_path / "out.wav").mean(axis=1)

    def fundamental(start, stop):
        part = mono[int(start * audio.SAMPLE_RATE) : int(stop * audio.SAMPLE_RATE)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        return np.fft.rfftfreq(len(part), 1 / audio.SAMPLE_RATE)[spectrum > 0.2 * spectrum.max()].min()

    assert fundamental(0.3, 1.8) == pytest.approx(880, rel=0.02)
    assert fundamental(2.5, 5.5) == pytest.approx(440, rel=0.02)


def test_more_instruments_than_channels_keep_their_programs():
    """18 instruments and drums, one after the other: each sounds as it does alone."""
    programs = [0, 6, 13, 19, 24, 30, 33, 40, 48, 56, 61, 65, 68, 71, 73, 80, 105, 114, DRUMS]
    notes = [(2 * BAR * i, program, 38 if program == DRUMS else 60, 24, 100) for i, program in enumerate(programs)]
    together = synthesise(Piece.from_notes(notes))
    for index in (0, 1, 14, 15, 16, 17, 18):
        alone = synthesise(Piece.from_notes([(0, *notes[index][1:])]))
        start = round(index * 4.0 * audio.SAMPLE_RATE)
        assert similarity(together[start:], alone) > 0.95, f"program {programs[index]} sounds like another"


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine similarity of the spectra of two sounds over their first second."""
    one, other = (np.abs(np.fft.rfft(sound[: audio.SAMPLE_RATE].mean(axis=1))) for sound in (one, other))
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def test_dense_music_is_not_clipped(tmp_path):
    piece = Piece.from_notes([(0, program, pitch, BAR, 127) for program in range(0, 90) for pitch in (36, 48, 60, 67)])
    samples = synthesise(piece)
    assert np.abs(samples).max() > 1, "loud enough to clip at the default volume"
    stats = render_wav(piece, tmp_path / "out.wav")
    assert stats.peak == pytest.approx(audio.PEAK, abs=1e-3)
    assert (np.abs(read(tmp_path / "out.wav")) > audio.PEAK - 1e-3).sum() < 10


def test_an_empty_piece_is_a_short_silence(tmp_path):
    stats = render_wav(Piece.from_notes([]), tmp_path / "out.wav")
    assert stats == audio.WavStats(seconds=audio.TAIL, peak=0.0, rms=0.0, silence=1.0)
    assert not read(tmp_path / "out.wav").any()


def test_trim_keeps_the_beginning():
    samples = np.zeros((3 * audio.SAMPLE_RATE, 2), np.float32)
    samples[audio.SAMPLE_RATE] = 0.5
    kept = audio.trim(samples)
    assert len(kept) == audio.SAMPLE_RATE + 1 + audio.TAIL * audio.SAMPLE_RATE
    assert kept[audio.SAMPLE_RATE].tolist() == [0.5, 0.5]


def test_without_a_synthesiser_the_error_says_how_to_install_one(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "midirenderer", None)
    with pytest.raises(AudioUnavailable, match=r"pip install -e '\.\[audio\]'") as caught:
        render_wav(Piece.from_notes([(0, 0, 60, 12, 80)]), tmp_path / "out.wav")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_missing_soundfont(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "SOUNDFONT", "absent.sf2")
    with pytest.raises(AudioUnavailable, match="absent.sf2"):
        render_wav(Piece.from_notes([(0, 0, 60, 12, 80)]), tmp_path / "out.wav")


def test_a_failing_synthesiser_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "SYNTHESISER", "raise ValueError('no such bank')")
    with pytest.raises(AudioUnavailable, match=r"the synthesiser failed \(ValueError: no such bank\)"):
        render_wav(Piece.from_notes([(0, 0, 60, 12, 80)]), tmp_path / "out.wav")


def test_long_pieces_are_refused_without_rendering(tmp_path):
    with pytest.raises(AudioUnavailable, match="the limit is 30"):
        render_wav(Piece.from_notes([(2**28, 0, 60, 12, 80)]), tmp_path / "out.wav")


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out.wav"):
        render_wav(Piece.from_notes([(0, 0, 60, 12, 80)]), tmp_path / "file" / "out.wav")


def test_a_recording_is_at_least_as_long_as_its_piece():
    """Even if the last note decays before its end, as drums and plucked strings do."""
    decayed = np.zeros((3 * audio.SAMPLE_RATE, 2), np.float32)
    decayed[: audio.SAMPLE_RATE] = 0.5
    assert len(audio.trim(decayed)) < 2 * audio.SAMPLE_RATE
    assert len(audio.trim(decayed, min_seconds=2.5)) == 2.5 * audio.SAMPLE_RATE
