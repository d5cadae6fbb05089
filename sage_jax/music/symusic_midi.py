"""The symusic reader: an optional C++ parser that checks reading.py independently."""

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.messages import MidiError
from sage_jax.music.midi import MAX_BYTES, bad_midi, parse_direct, to_bytes, tracks_read
from sage_jax.music.notes import DRUMS
from sage_jax.music.reading import ParsedMidi
from sage_jax.music.system_events import MICROSECONDS_PER_MINUTE

MAX_TICK = 2**31  # symusic stores ticks as 32-bit integers


def is_installed() -> bool:
    """Whether symusic can be imported."""
    return importlib.util.find_spec("symusic") is not None


def check_installed() -> None:
    """Raises UserError if symusic is not installed."""
    if not is_installed():
        raise UserError(
            "preprocess.reader is 'symusic', which is not installed; pip install -e '.[symusic]', "
            "or use 'direct', which gives the same result"
        )


def parse_symusic(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """As `parse_direct`, but symusic reads the notes, tempos and meters from the normalized file. Raises BadMidi."""
    import symusic

    midi = parse_direct(path, max_bytes=max_bytes)
    with bad_midi(path):
        if midi.end.max(initial=0) >= MAX_TICK:
            raise MidiError("too_long", f"it has {midi.end.max():,.0f} ticks, above symusic's limit of {MAX_TICK:,}")
        score: Any = symusic.Score.from_midi(to_bytes(midi))  # symusic's annotations lack the attributes of a score
    sources = [(DRUMS if track.is_drum else track.program, track.name) for track in score.tracks]
    tracks, index = tracks_read(midi, sources)
    parts = [track.notes.numpy() for track in score.tracks]
    start, duration, pitch, velocity = (
        np.concatenate([notes[name] for notes in parts] or [np.zeros(0)], dtype=dtype, casting="unsafe")
        for name, dtype in (("time", np.float64), ("duration", np.float64), ("pitch", np.int64), ("velocity", np.int64))
    )
    tempos, meters = score.tempos.numpy(), score.time_signatures.numpy()
    return dataclasses.replace(
        midi,
        start=start,
        end=start + duration,
        pitch=pitch,
        velocity=velocity,
        track=np.repeat(index, [len(notes["time"]) for notes in parts]),
        tracks=tracks,
        tempo_ticks=tempos["time"].astype(np.float64),
        qpm=MICROSECONDS_PER_MINUTE / tempos["mspq"],
        meters=list(zip(*(meters[name].tolist() for name in ("time", "numerator", "denominator")), strict=True)),
    )
