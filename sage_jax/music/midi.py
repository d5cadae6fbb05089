"""MIDI files to pieces and back. reading.py decides what a file means; pretty_midi and symusic read what it has decided."""

import collections
import contextlib
import dataclasses
import io
import itertools
import operator
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pretty_midi

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.grid import to_piece
from sage_jax.music.loss import GridLoss
from sage_jax.music.messages import MidiError
from sage_jax.music.notes import DRUMS, NOTE, Piece
from sage_jax.music.reading import MICROSECONDS, ParsedMidi, read_bytes
from sage_jax.music.writing import midi_bytes

MAX_BYTES = 8 << 20  # about three million events; parsing more takes minutes
WRITTEN_RESOLUTION = 480  # ticks per quarter in written files, or the nearest multiple of the grid below it
WAYS_OUT = {
    "no_ticks": "save it again from a music program with metrical time, not SMPTE time",
    "too_long": "split it into shorter files",
    "broken": "save it again from a music program",
}


class BadMidi(UserError):
    """A MIDI file that can't be read; `reason` is a short slug to count by."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return BadMidi, (self.reason, str(self))


def read_midi(
    path, ticks_per_quarter: int = 12, *, max_bytes: int = MAX_BYTES, loss: GridLoss | None = None
) -> Piece:
    """The piece in the MIDI file at `path`. Raises BadMidi, which names the file, for a file that is none."""
    midi = parse_direct(path, max_bytes=max_bytes)
    try:
        return to_piece(midi, ticks_per_quarter, loss=loss)
    except (ValueError, OverflowError) as error:
        raise BadMidi("invalid", f"{path}: {error}") from error


def check_file(path, max_bytes: int) -> pathlib.Path:
    """`path`, where there is a file of a size that may be read. Raises BadMidi."""
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadMidi("unreadable", f"{path}: {error.strerror}; give the path of a MIDI file") from error
    if path.is_dir():
        raise BadMidi("unreadable", f"{path} is a folder; give the path of a MIDI file")
    if size == 0:
        raise BadMidi("empty", f"{path} is empty; give a MIDI file with notes")
    if size > max_bytes:
        raise BadMidi(
            "too_large", f"{path} has {size:,} bytes, over the limit of {max_bytes:,}; split it into shorter files"
        )
    return path


def parse_direct(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """What the file at `path` says. Raises BadMidi."""
    path = check_file(path, max_bytes)
    with bad_midi(path):
        return read_bytes(path.read_bytes())


def parse_columns(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """What the file at `path` says, its notes, tempos and meters as pretty_midi reads them. Raises BadMidi."""
    midi = parse_direct(path, max_bytes=max_bytes)
    with bad_midi(path):
        read = columns_of(_pretty(to_bytes(midi)))
    whole = {name: np.rint(getattr(read, name)) for name in ("start", "end", "tempo_ticks")}
    whole["qpm"] = MICROSECONDS / np.rint(MICROSECONDS / read.qpm)
    meters = [(round(tick), *meter) for tick, *meter in read.meters]
    return dataclasses.replace(midi, **whole, pitch=read.pitch, velocity=read.velocity, program=read.program, meters=meters)


@contextlib.contextmanager
def bad_midi(path) -> Iterator[None]:
    """Raises BadMidi, which names the file at `path` and the way out, for whatever reading its bytes raises."""
    try:
        yield
    except MidiError as error:
        raise BadMidi(error.reason, f"{path} can't be read as MIDI: {error}; {WAYS_OUT[error.reason]}") from error
    except OSError as error:
        raise BadMidi("unreadable", f"{path}: {error.strerror}; give the path of a MIDI file") from error
    except MemoryError as error:
        raise BadMidi("too_large", f"{path} needs more memory than there is; split it into shorter files") from error
    except ValueError as error:
        raise BadMidi("too_long", f"{path}: {error}; preprocess.reader=direct reads it") from error


def to_bytes(midi: ParsedMidi) -> bytes:
    """What was read, as a file in which nothing is ambiguous, with the same ticks. Raises ValueError for ticks beyond MIDI's."""
    notes = np.stack([midi.start, midi.end, midi.program, midi.pitch, midi.velocity], axis=1).astype(np.int64)
    tempos = zip(midi.tempo_ticks.astype(np.int64).tolist(), midi.qpm.tolist(), strict=True)
    return midi_bytes(notes, tempos, midi.meters, midi.ticks_per_quarter)


def _pretty(data: bytes) -> pretty_midi.PrettyMIDI:
    """A file of `to_bytes` as pretty_midi reads it."""
    library = pretty_midi.pretty_midi
    limit = library.MAX_TICK
    try:
        # pretty_midi takes more than ten million ticks for damage: minutes of music where a quarter has many.
        library.MAX_TICK = np.inf
        return pretty_midi.PrettyMIDI(io.BytesIO(data))
    finally:
        library.MAX_TICK = limit


def from_midi(
    midi: pretty_midi.PrettyMIDI, ticks_per_quarter: int = 12, *, loss: GridLoss | None = None
) -> Piece:
    """The piece in `midi`, as `to_piece` makes it."""
    return to_piece(columns_of(midi), ticks_per_quarter, loss=loss)


def columns_of(midi: pretty_midi.PrettyMIDI) -> ParsedMidi:
    """What pretty_midi's objects say, as arrays, in ticks of its resolution and parts of them."""
    tracks = [track for track in midi.instruments if track.notes]
    programs = [DRUMS if track.is_drum else int(track.program) for track in tracks]
    fields = operator.attrgetter("start", "end", "pitch", "velocity")
    values = itertools.chain.from_iterable(fields(note) for track in tracks for note in track.notes)
    start, end, pitch, velocity = np.fromiter(values, np.float64).reshape(-1, 4).T
    clock = _Clock(*midi.get_tempo_changes(), midi.resolution)
    # Tracks that pretty_midi makes of one channel share the list of what came before their first note.
    controls = [each for track in midi.instruments for each in (track.control_changes, track.pitch_bends)]
    return ParsedMidi(
        ticks_per_quarter=midi.resolution,
        start=clock(start),
        end=clock(end),
        pitch=pitch.astype(np.int64),
        velocity=velocity.astype(np.int64),
        program=np.repeat(np.array(programs, np.int64), [len(track.notes) for track in tracks]),
        tempo_ticks=clock.ticks,
        qpm=clock.qpm,
        meters=[(float(clock(change.time)), change.numerator, change.denominator) for change in midi.time_signature_changes],
        tracks=len(tracks),
        controls=sum({id(each): len(each) for each in controls}.values()),
        oddities=collections.Counter(),
    )


class _Clock:
    """Seconds to ticks (float64) through a tempo map, times [C] in seconds and qpm [C]."""

    def __init__(self, times: np.ndarray, qpm: np.ndarray, ticks_per_quarter: int):
        self.times, self.qpm = np.asarray(times, np.float64), np.asarray(qpm, np.float64)
        self.per_second = self.qpm * ticks_per_quarter / 60
        self.ticks = np.concatenate([[0.0], np.cumsum(np.diff(self.times) * self.per_second[:-1])])

    def __call__(self, seconds: np.ndarray | float) -> np.ndarray:
        row = np.maximum(np.searchsorted(self.times, seconds, "right") - 1, 0)
        return self.ticks[row] + (seconds - self.times[row]) * self.per_second[row]


def to_midi(piece: Piece) -> pretty_midi.PrettyMIDI:
    """`piece` in pretty_midi's objects: a track for each program, and one more for each note that would cut its equal."""
    return _pretty(piece_to_bytes(piece))


def piece_to_bytes(piece: Piece) -> bytes:
    """`piece` as a MIDI file. Raises ValueError for a rest too long for one."""
    scale = max(1, WRITTEN_RESOLUTION // piece.ticks_per_quarter)
    onset, program, pitch, duration, velocity = (piece.notes[name].astype(np.int64) for name in NOTE.names)
    notes = np.stack([onset * scale, (onset + duration) * scale, program, pitch, velocity], axis=1)
    tempos = [(tick * scale, qpm) for tick, qpm in piece.tempos.tolist()]
    meters = [(tick * scale, numerator, denominator) for tick, numerator, denominator in piece.meters.tolist()]
    return midi_bytes(notes, tempos, meters, piece.ticks_per_quarter * scale)


def save_midi(piece: Piece, path: str | os.PathLike) -> None:
    """Writes `piece` to a MIDI file that appears whole or not at all. Raises UserError where it can't be written."""
    try:
        data = piece_to_bytes(piece)
    except ValueError as error:
        raise UserError(f"cannot write {path}: {error}; write the piece in parts") from error
    with replacing(path) as temporary:
        temporary.write_bytes(data)
