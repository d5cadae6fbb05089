"""A piece as a recording: a General MIDI synthesiser and the soundfont inside the pretty_midi package, no system library."""

import dataclasses
import importlib.resources
import io
import os
import wave

import numpy as np
import pretty_midi

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.midi import to_midi
from sage_jax.music.notes import Piece

SOUNDFONT = "TimGM6mb.sf2"
SAMPLE_RATE = 48_000  # what the synthesiser renders at
PEAK = 10 ** (-1 / 20)  # -1 dBFS
SILENCE = 1e-3  # -60 dBFS
RING_OUT = 2.5  # seconds rendered after the last note, for its release and the room
TAIL = 0.5  # seconds kept after the last sound, faded out
TRACKS_PER_PASS = 15  # pretty_midi spreads tracks over 15 channels; a 16th would take over the first one's program
VOLUMES = (100, 64, 40, 25)  # MIDI channel volumes, the default first: the synthesiser clips what is too loud
MAX_SECONDS = 1800.0


class AudioUnavailable(UserError):
    """No recording can be made here; all else can go on without it."""


@dataclasses.dataclass(frozen=True)
class WavStats:
    """What a recording is like: its length, its peak and root mean square (1 is full scale), its share of silent 50 ms."""

    seconds: float
    peak: float
    rms: float
    silence: float


def render_wav(piece: Piece, path: str | os.PathLike) -> WavStats:
    """Writes `piece` as a stereo WAV of 16 bits, its peak at -1 dBFS.

    Raises AudioUnavailable where there is no synthesiser or soundfont or the piece is over half an hour, UserError where
    `path` can't be written.
    """
    seconds = float(piece.seconds(piece.end))
    if seconds > MAX_SECONDS:
        raise AudioUnavailable(f"no WAV: {seconds / 60:,.0f} minutes of music; the limit is {MAX_SECONDS / 60:.0f}")
    samples = synthesise(piece)
    peak = np.abs(samples).max(initial=0)
    samples = trim(samples * (PEAK / peak if peak else 1), seconds)
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return measure(samples)


def write_mp3(samples: np.ndarray, path: str | os.PathLike) -> None:
    """Writes float [frames, 2], 1 being full scale, for browsers. Raises AudioUnavailable without a library that can."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise AudioUnavailable("no MP3: soundfile is not installed; pip install -e '.[audio]' brings it") from error
    with replacing(path) as temporary:
        try:
            soundfile.write(temporary, samples, SAMPLE_RATE, format="MP3")
        except (ValueError, RuntimeError) as error:  # a libsndfile of before 1.1 knows no MP3
            raise AudioUnavailable(f"no MP3: this soundfile cannot write it ({error})") from error


def synthesise(piece: Piece) -> np.ndarray:
    """The sound of `piece` and its ringing out, float32 [frames, 2], not normalised. Raises AudioUnavailable."""
    render = _synthesiser()
    midi = to_midi(piece)
    end = float(piece.seconds(piece.end)) + RING_OUT
    total = np.zeros((round(end * SAMPLE_RATE), 2), np.float32)
    tracks = midi.instruments
    for first in range(0, len(tracks), TRACKS_PER_PASS):
        midi.instruments = tracks[first : first + TRACKS_PER_PASS]
        samples = _without_clipping(render, midi, end)[: len(total)]
        total[: len(samples)] += samples
    return total


def _without_clipping(render, midi: pretty_midi.PrettyMIDI, end: float) -> np.ndarray:
    """The tracks of one pass at the volume of VOLUMES[0], rendered more softly and amplified where they would clip."""
    for volume in VOLUMES:
        for track in midi.instruments:
            # The pedal's release does nothing but keep the synthesiser running until `end`.
            track.control_changes = [pretty_midi.ControlChange(7, volume, 0), pretty_midi.ControlChange(64, 0, end)]
        file = io.BytesIO()
        midi.write(file)
        samples = render(file.getvalue())
        if np.abs(samples).max(initial=0) < 0.999:
            break
    return samples * (VOLUMES[0] / volume) ** 2  # loudness follows the square of the volume, as General MIDI has it


def _synthesiser():
    """A function from the bytes of a MIDI file to float32 [frames, 2]. Raises AudioUnavailable."""
    try:
        import midirenderer
    except ImportError as error:
        raise AudioUnavailable("no WAV: no synthesiser is installed; pip install -e '.[audio]' brings one") from error
    try:
        soundfont = (importlib.resources.files(pretty_midi) / SOUNDFONT).read_bytes()
    except OSError as error:
        raise AudioUnavailable(
            f"no WAV: this pretty_midi comes without its soundfont {SOUNDFONT}; "
            "pip install -e '.[audio]' in a new environment brings the one from PyPI"
        ) from error

    def render(midi: bytes) -> np.ndarray:
        try:
            recording = midirenderer.render_wave_from(soundfont, midi)
        except Exception as error:  # whatever the synthesiser raises: a take without its recording is still a take
            raise AudioUnavailable(f"no WAV: the synthesiser failed ({error})") from error
        with wave.open(io.BytesIO(recording)) as file:
            frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return frames.reshape(-1, 2).astype(np.float32) / 32768

    return render


def trim(samples: np.ndarray, least: float = 0.0) -> np.ndarray:
    """`samples` up to TAIL seconds after the last sound above SILENCE, and for `least` seconds, the tail faded out.

    The beginning stays.
    """
    loud = np.flatnonzero(np.abs(samples).max(axis=1) > SILENCE)
    tail = int(TAIL * SAMPLE_RATE)
    end = max((loud[-1] + 1 if len(loud) else 0) + tail, round(least * SAMPLE_RATE))
    samples = samples[:end].copy()
    fade = min(tail, len(samples))
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade, dtype=samples.dtype)[:, None] ** 2
    return samples


def measure(samples: np.ndarray) -> WavStats:
    """Levels of float [frames, 2]."""
    power = np.square(samples, dtype=np.float64).mean(axis=1)
    block = SAMPLE_RATE // 20
    blocks = power[: len(power) // block * block].reshape(-1, block).mean(axis=1)
    return WavStats(
        seconds=len(samples) / SAMPLE_RATE,
        peak=float(np.abs(samples).max(initial=0)),
        rms=float(np.sqrt(power.mean())) if len(power) else 0.0,
        silence=float((blocks < SILENCE**2).mean()) if len(blocks) else 1.0,
    )
