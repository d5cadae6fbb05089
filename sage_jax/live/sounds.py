"""The samples that a page plays: notes of each program, rendered once from the soundfont and kept on disk."""

import asyncio
import concurrent.futures
import hashlib
import io
import json
import pathlib
import tempfile
import wave

import numpy as np

from sage_jax.compilation_cache import default_folder
from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.live.loops import looped
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.rendering.audio import SAMPLE_RATE, AudioUnavailable, soundfont_path, synthesise

RECIPE = "1"  # of the samples; another one makes all of them again
VELOCITY = 100
STEP = 4  # semitones between two samples: a sample is moved by two at most
HOLD, GAP = 6.0, 0.5  # seconds that a note is held, and that follow until the next one
DRUM_HOLD = 2.5
FADE = 0.03  # seconds, at the end of a sample that is cut
SILENCE = 1e-3  # of a sample's own peak
AUDIBLE = 0.05  # of the program's peak; below it the soundfont has no such note, and a neighbour plays it
PEAK = 0.9  # of every file; `gain` restores the balance of the soundfont
TICKS = 24  # a second, at 120 quarters a minute and 12 ticks a quarter
NICENESS = 10
MAX_BYTES = 1 << 29  # of all samples on disk
DRUM_PITCHES = range(27, 88)
# Programs whose notes die away while they are held; the others are measured, and are looped where they hold.
DECAYING = {*range(16), *range(24, 29), *range(32, 40), *range(45, 48), 55, *range(104, 109), *range(112, 120), DRUMS}


def pitches_of(program: int) -> range:
    """The pitches that are rendered: all drums, or every fourth semitone of the instrument's range."""
    if program == DRUMS:
        return DRUM_PITCHES
    return range(24, 73, STEP) if 32 <= program < 40 else range(24, 106, STEP)


def make_samples(program: int) -> tuple[bytes, dict]:
    """A WAV, 16-bit mono, with one note after another, and where each of them is in it.

    The second has `gain`, which restores the balance between programs, and `notes`: each with its pitch, its start and length
    in the file in seconds, and `loop`, the seconds in the file between which a held note goes on, or null. Raises
    AudioUnavailable.
    """
    pitches, hold = pitches_of(program), DRUM_HOLD if program == DRUMS else HOLD
    slot = round((hold + GAP) * TICKS)
    notes = [(slot * place, program, pitch, round(hold * TICKS), VELOCITY) for place, pitch in enumerate(pitches)]
    sound = synthesise(Piece.from_notes(notes), is_dry=True, niceness=NICENESS).mean(axis=1)
    peak = float(np.abs(sound).max(initial=0))
    if not peak:
        raise AudioUnavailable(f"the soundfont has no sound for program {program}")
    parts, found, place = [], [], 0
    for number, pitch in enumerate(pitches):
        first = slot * number * SAMPLE_RATE // TICKS
        sample = sound[first : first + int(hold * SAMPLE_RATE)]
        if np.abs(sample).max(initial=0) < AUDIBLE * peak:
            continue
        sample, loop = (sample, None) if program in DECAYING else looped(sample, SAMPLE_RATE)
        sample = sample.copy() if loop else _ended(sample)
        start = place / SAMPLE_RATE
        times = {"start": start, "seconds": len(sample) / SAMPLE_RATE}
        found.append({"pitch": pitch, **times, "loop": loop and [start + loop[0], start + loop[1]]})
        parts += [sample, np.zeros(round(FADE * SAMPLE_RATE), sample.dtype)]
        place += len(parts[-2]) + len(parts[-1])
    whole = np.concatenate(parts)
    gain = float(np.abs(whole).max()) / PEAK  # loops may be louder than what was rendered
    return _wav(whole / gain), {"gain": gain, "notes": found}


def _ended(sample: np.ndarray) -> np.ndarray:
    """`sample` up to where it is silent, faded out at its end."""
    loud = np.flatnonzero(np.abs(sample) > SILENCE * np.abs(sample).max())
    fade = round(FADE * SAMPLE_RATE)
    sample = sample[: loud[-1] + 1 + fade].copy()
    sample[-fade:] *= np.linspace(1, 0, fade, dtype=sample.dtype)
    return sample


def _wav(sound: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
    return file.getvalue()


class SoundStore:
    """Samples by program, made at the first request on a thread of their own, and kept in `folder`.

    folder: the user's cache by default. version: part of their address, so that browsers keep them for ever; "" where the
    synthesiser is missing, and the page plays simple tones.
    """

    def __init__(self, folder: pathlib.Path | None = None):
        try:
            soundfont = soundfont_path().read_bytes()
        except AudioUnavailable:
            soundfont = b""
        self.version = hashlib.sha256(soundfont + RECIPE.encode()).hexdigest()[:12] if soundfont else ""
        self.folder = (default_folder().parent / "sounds" if folder is None else folder) / self.version
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "sounds")
        self._own: tempfile.TemporaryDirectory | None = None

    async def read(self, program: int, suffix: str) -> bytes:
        """The file PROGRAM.wav or PROGRAM.json. Raises UserError if it can't be made."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.make, program, suffix)

    def make(self, program: int, suffix: str) -> bytes:
        """As `read`, in the caller's thread; one at a time."""
        path = self.folder / f"{program}.{suffix}"
        try:
            return path.read_bytes()
        except OSError:
            pass
        sound, notes = make_samples(program)
        try:
            self._keep(program, sound, notes)
        except UserError:  # the cache can't be written; this process keeps them
            self._own = self._own or tempfile.TemporaryDirectory()
            self.folder = pathlib.Path(self._own.name)
            self._keep(program, sound, notes)
        return sound if suffix == "wav" else json.dumps(notes).encode()

    def close(self) -> None:
        """Forgets what is not made yet."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._own is not None:
            self._own.cleanup()

    def _keep(self, program: int, sound: bytes, notes: dict) -> None:
        """Writes the samples of a program; the programs that were made first make space for them."""
        with replacing(self.folder / f"{program}.wav") as path:
            path.write_bytes(sound)
        with replacing(self.folder / f"{program}.json") as path:
            path.write_text(json.dumps(notes))
        files = sorted(self.folder.glob("*.wav"), key=lambda file: file.stat().st_mtime)
        size = sum(file.stat().st_size for file in files)
        for file in files[:-1]:
            if size <= MAX_BYTES:
                break
            size -= file.stat().st_size
            file.unlink(missing_ok=True)
            file.with_suffix(".json").unlink(missing_ok=True)
