"""Audio rendering with a General MIDI synthesiser and the soundfont of the pretty_midi package; no system library needed."""

import dataclasses
import importlib.resources
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import wave
from collections.abc import Callable

import numpy as np
import pretty_midi

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.midi import to_midi
from sage_jax.music.notes import Piece

SOUNDFONT = "TimGM6mb.sf2"
SAMPLE_RATE = 48_000  # of the synthesiser
PEAK = 10 ** (-1 / 20)  # -1 dBFS
SILENCE = 1e-3  # -60 dBFS
LOUDNESS = 0.08  # root mean square of every clip of a page, 1 being full scale
RELEASE = 2.5  # seconds rendered after the last note, for its release and reverberation
TAIL = 0.5  # seconds kept after the last sound, faded out
TRACKS_PER_PASS = 15  # pretty_midi has 15 pitched channels; a 16th track would share the program of the first
VOLUMES = (100, 64, 40, 25)  # MIDI channel volumes to try in turn, because the synthesiser clips loud passages
MAX_SECONDS = 1800.0
# Run by a Python process: soundfont's path, niceness, MIDI on stdin -> WAV on stdout.
SYNTHESISER = """
import os, pathlib, sys, midirenderer
os.nice(int(sys.argv[2]))
soundfont = pathlib.Path(sys.argv[1]).read_bytes()
sys.stdout.buffer.write(midirenderer.render_wave_from(soundfont, sys.stdin.buffer.read()))
"""


class AudioUnavailable(UserError):
    """Audio can't be rendered here; callers may continue without it."""


@dataclasses.dataclass(frozen=True)
class WavStats:
    """Statistics of a recording. peak, rms: 1 is full scale. silence: share of 50 ms blocks below -60 dBFS."""

    seconds: float
    peak: float
    rms: float
    silence: float


def render_wav(piece: Piece, path: str | os.PathLike) -> WavStats:
    """Writes `piece` as a 16-bit stereo WAV with its peak at -1 dBFS.

    Raises AudioUnavailable without a synthesiser or soundfont, or if the piece is longer than MAX_SECONDS, and UserError if
    `path` can't be written.
    """
    seconds = float(piece.seconds(piece.end))
    if seconds > MAX_SECONDS:
        raise AudioUnavailable(f"no WAV: the piece has {seconds / 60:,.0f} minutes; the limit is {MAX_SECONDS / 60:.0f}")
    samples = synthesise(piece)
    peak = np.abs(samples).max(initial=0)
    samples = trim(samples * (PEAK / peak if peak else 1), seconds)
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return measure(samples)


def render_mp3(piece: Piece, path: str | os.PathLike) -> WavStats:
    """Writes `piece` as an MP3 at the loudness that all clips have, or less where it would clip. Raises as `render_wav`."""
    samples = trim(synthesise(piece), float(piece.seconds(piece.end)))
    loudness, peak = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), float(np.abs(samples).max(initial=0))
    if peak:
        samples = samples * min(LOUDNESS / loudness, PEAK / peak)
    write_mp3(samples, path)
    return measure(samples)


def write_mp3(samples: np.ndarray, path: str | os.PathLike) -> None:
    """Writes float [frames, 2], 1 being full scale, as MP3. Raises AudioUnavailable without a soundfile that supports it."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise AudioUnavailable("no MP3: soundfile is not installed; run pip install -e '.[audio]'") from error
    with replacing(path) as temporary:
        try:
            soundfile.write(temporary, samples, SAMPLE_RATE, format="MP3")
        except (ValueError, RuntimeError) as error:  # libsndfile before 1.1 does not support MP3
            raise AudioUnavailable(f"no MP3: this soundfile cannot write it ({error})") from error


def synthesise(piece: Piece, is_dry: bool = False, niceness: int = 0) -> np.ndarray:
    """Renders `piece` and RELEASE seconds after it: float32 [frames, 2], not normalised. Raises AudioUnavailable.

    is_dry: without reverberation and chorus. niceness: of the process that renders; a high one leaves others alone.
    """
    render = _synthesiser(niceness)
    midi = to_midi(piece, split_overlaps=True)
    end = float(piece.seconds(piece.end)) + RELEASE
    total = np.zeros((round(end * SAMPLE_RATE), 2), np.float32)
    tracks = midi.instruments
    for first in range(0, len(tracks), TRACKS_PER_PASS):
        midi.instruments = tracks[first : first + TRACKS_PER_PASS]
        samples = _without_clipping(render, midi, end, is_dry)[: len(total)]
        total[: len(samples)] += samples
    return total


def _without_clipping(
    render: Callable[[bytes], np.ndarray], midi: pretty_midi.PrettyMIDI, end: float, is_dry: bool
) -> np.ndarray:
    """Renders one pass at the level of VOLUMES[0]; if it clips, renders it at a lower volume and amplifies the result."""
    samples, volume = np.zeros((0, 2), np.float32), VOLUMES[0]
    for volume in VOLUMES:
        for track in midi.instruments:
            # Releasing the pedal at `end` keeps the synthesiser running until then.
            track.control_changes = [pretty_midi.ControlChange(7, volume, 0), pretty_midi.ControlChange(64, 0, end)]
            track.control_changes += [pretty_midi.ControlChange(effect, 0, 0) for effect in (91, 93) if is_dry]
        file = io.BytesIO()
        midi.write(file)
        samples = render(file.getvalue())
        if np.abs(samples).max(initial=0) < 0.999:
            break
    return samples * np.float32(
        (VOLUMES[0] / volume) ** 2
    )  # in General MIDI, amplitude is proportional to the square of the volume


def soundfont_path() -> pathlib.Path:
    """The soundfont, where the synthesiser is installed too. Raises AudioUnavailable."""
    if importlib.util.find_spec("midirenderer") is None:
        raise AudioUnavailable("no WAV: no synthesiser is installed; run pip install -e '.[audio]'")
    path = pathlib.Path(str(importlib.resources.files(pretty_midi) / SOUNDFONT))
    if not path.is_file():
        raise AudioUnavailable(
            f"no WAV: this installation of pretty_midi lacks its soundfont {SOUNDFONT}; "
            "run pip install -e '.[audio]' in a new environment to install the release from PyPI"
        )
    return path


def _synthesiser(niceness: int) -> Callable[[bytes], np.ndarray]:
    """A function from the bytes of a MIDI file to float32 [frames, 2]. Raises AudioUnavailable.

    The synthesiser holds Python's lock while it works, so it runs in a process of its own and threads can render in parallel.
    """
    command = [sys.executable, "-P", "-c", SYNTHESISER, str(soundfont_path()), str(niceness)]

    def render(midi: bytes) -> np.ndarray:
        try:
            done = subprocess.run(command, input=midi, capture_output=True)
        except OSError as error:
            raise AudioUnavailable(f"no WAV: the synthesiser can't be started ({error.strerror})") from error
        if done.returncode:  # a failed recording must not lose the MIDI file
            reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise AudioUnavailable(f"no WAV: the synthesiser failed ({reason})")
        with wave.open(io.BytesIO(done.stdout)) as file:
            frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return frames.reshape(-1, 2).astype(np.float32) / 32768

    return render


def trim(samples: np.ndarray, min_seconds: float = 0.0) -> np.ndarray:
    """Cuts `samples` [frames, 2] TAIL seconds after the last sound above SILENCE, with a fade-out over the tail.

    The result has at least `min_seconds`, if `samples` is that long. Silence at the start is kept.
    """
    loud = np.flatnonzero(np.maximum(*np.abs(samples).T) > SILENCE)  # a maximum over an axis of 2 would be ten times as slow
    tail = int(TAIL * SAMPLE_RATE)
    end = max((loud[-1] + 1 if len(loud) else 0) + tail, round(min_seconds * SAMPLE_RATE))
    samples = samples[:end].copy()
    fade = min(tail, len(samples))
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade, dtype=samples.dtype)[:, None] ** 2
    return samples


def measure(samples: np.ndarray) -> WavStats:
    """The statistics of float [frames, 2]."""
    power = np.add(*np.square(samples, dtype=np.float64).T) / 2
    block = SAMPLE_RATE // 20
    blocks = power[: len(power) // block * block].reshape(-1, block).mean(axis=1)
    return WavStats(
        seconds=len(samples) / SAMPLE_RATE,
        peak=float(np.abs(samples).max(initial=0)),
        rms=float(np.sqrt(power.mean())) if len(power) else 0.0,
        silence=float((blocks < SILENCE**2).mean()) if len(blocks) else 1.0,
    )
