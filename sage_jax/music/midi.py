"""MIDI files to pieces and back.

reading.py interprets a file. The pretty_midi and symusic readers then parse its normalized rewrite, as an independent check.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import operator
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

import numpy as np
import pretty_midi

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.file_tracks import clean
from sage_jax.music.messages import MidiError
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.quantization import to_piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.reading import ParsedMidi, read_bytes
from sage_jax.music.system_events import MICROSECONDS_PER_MINUTE
from sage_jax.music.tracks import Track, numbered
from sage_jax.music.writing import midi_bytes

MAX_BYTES = 8 << 20  # about three million events
OUTPUT_TICKS_PER_QUARTER = 480  # of written files, rounded down to a multiple of the piece's resolution
ADVICE = {
    "no_ticks": "save it again from a music program with metrical time, not SMPTE time",
    "too_long": "split it into shorter files",
    "broken": "save it again from a music program",
}


class BadMidi(UserError):
    """A MIDI file that cannot be read. `reason` is a short slug for counting."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return BadMidi, (self.reason, str(self))


def read_midi(
    path, ticks_per_quarter: int = 12, *, max_bytes: int = MAX_BYTES, loss: QuantizationStats | None = None
) -> Piece:
    """The piece in the MIDI file at `path`, quantized to `ticks_per_quarter`.

    loss: counters to which every change is added.
    Raises BadMidi, whose message names the file, if it is missing, too large, damaged or not MIDI.
    """
    return piece_of(parse_direct(path, max_bytes=max_bytes), path, ticks_per_quarter, loss=loss)


def piece_of(midi: ParsedMidi, path, ticks_per_quarter: int, *, loss: QuantizationStats | None = None) -> Piece:
    """The piece in `midi`, read from `path`, as `read_midi` returns it."""
    try:
        return to_piece(midi, ticks_per_quarter, loss=loss)
    except (ValueError, OverflowError) as error:
        raise BadMidi("invalid", f"{path}: {error}") from error


def check_file(path, max_bytes: int) -> pathlib.Path:
    """`path`, if it is a non-empty file of at most `max_bytes`. Raises BadMidi otherwise."""
    path = pathlib.Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise BadMidi("unreadable", f"{path}: {error.strerror}; give the path of a MIDI file") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadMidi("unreadable", f"{path} is a folder; give the path of a MIDI file")
    size = status.st_size
    if size == 0:
        raise BadMidi("empty", f"{path} is empty; give a MIDI file with notes")
    if size > max_bytes:
        raise BadMidi(
            "too_large", f"{path} has {size:,} bytes, above the limit of {max_bytes:,}; split it into shorter files"
        )
    return path


def parse_direct(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """Parses the file at `path` with this package's own reader. Raises BadMidi."""
    path = check_file(path, max_bytes)
    with bad_midi(path):
        return read_bytes(path.read_bytes())


def parse_pretty_midi(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """As `parse_direct`, but pretty_midi reads the notes, tempos and meters from the normalized file. Raises BadMidi."""
    midi = parse_direct(path, max_bytes=max_bytes)
    with bad_midi(path):
        read = pretty_midi_to_parsed(_load_pretty_midi(to_bytes(midi)))
    # pretty_midi stores seconds; rounding restores whole ticks and whole microseconds per quarter.
    whole = {name: np.rint(getattr(read, name)) for name in ("start", "end", "tempo_ticks")}
    whole["qpm"] = MICROSECONDS_PER_MINUTE / np.rint(MICROSECONDS_PER_MINUTE / read.qpm)
    meters = [(round(tick), *meter) for tick, *meter in read.meters]
    tracks, index = tracks_read(midi, [(track.program, track.name) for track in read.tracks])
    notes = dict(pitch=read.pitch, velocity=read.velocity, track=index[read.track], tracks=tracks)
    return dataclasses.replace(midi, **whole, **notes, meters=meters)


@contextlib.contextmanager
def bad_midi(path) -> Iterator[None]:
    """Turns errors of the block into BadMidi, whose message names the file at `path` and a remedy."""
    try:
        yield
    except MidiError as error:
        raise BadMidi(error.reason, f"{path} can't be read as MIDI: {error}; {ADVICE[error.reason]}") from error
    except OSError as error:
        raise BadMidi("unreadable", f"{path}: {error.strerror}; give the path of a MIDI file") from error
    except MemoryError as error:
        raise BadMidi("too_large", f"{path} needs more memory than is available; split it into shorter files") from error
    except ValueError as error:
        raise BadMidi("too_long", f"{path}: {error}; use preprocess.reader=direct") from error


def to_bytes(midi: ParsedMidi) -> bytes:
    """An unambiguous MIDI file with the same notes, tempos, meters and ticks. Raises ValueError if MIDI cannot hold them.

    The name of each track is its index in `midi.tracks`.
    """
    notes = np.stack([midi.start, midi.end, midi.track, midi.pitch, midi.velocity]).astype(np.int64).T
    tempos = zip(midi.tempo_ticks.astype(np.int64).tolist(), midi.qpm.tolist(), strict=True)
    meters = [(int(tick), numerator, denominator) for tick, numerator, denominator in midi.meters]
    return midi_bytes(notes, _named_by_index(midi.tracks), tempos, meters, midi.ticks_per_quarter)


def tracks_read(midi: ParsedMidi, found: Sequence[tuple[int, str]]) -> tuple[tuple[Track, ...], np.ndarray]:
    """The tracks of `midi`, with the programs that a reader of `to_bytes(midi)` found, and the index of each track found.

    found: program and name of each of the reader's tracks.
    """
    tracks, index = list(midi.tracks), [int(name) for _, name in found]
    for place, (program, _) in zip(index, found, strict=True):
        tracks[place] = tracks[place]._replace(program=program)
    return tuple(tracks), np.array(index, np.int64)


def _named_by_index(tracks: Sequence[Track]) -> list[Track]:
    return [track._replace(name=str(index)) for index, track in enumerate(tracks)]


def _load_pretty_midi(data: bytes) -> pretty_midi.PrettyMIDI:
    """Parses the bytes of a MIDI file with pretty_midi."""
    library = pretty_midi.pretty_midi
    limit = library.MAX_TICK
    try:
        # pretty_midi rejects files above ten million ticks, which is only minutes of music at high resolutions.
        library.MAX_TICK = np.inf
        return pretty_midi.PrettyMIDI(io.BytesIO(data))
    finally:
        library.MAX_TICK = limit


def from_midi(
    midi: pretty_midi.PrettyMIDI, ticks_per_quarter: int = 12, *, loss: QuantizationStats | None = None
) -> Piece:
    """The piece in `midi`, quantized by `to_piece`."""
    return to_piece(pretty_midi_to_parsed(midi), ticks_per_quarter, loss=loss)


def pretty_midi_to_parsed(midi: pretty_midi.PrettyMIDI) -> ParsedMidi:
    """pretty_midi's objects as arrays. Times are in ticks of its resolution and may be fractional."""
    tracks = [track for track in midi.instruments if track.notes]
    sources = [(DRUMS if track.is_drum else int(track.program), clean(track.name)) for track in tracks]
    fields = operator.attrgetter("start", "end", "pitch", "velocity")
    values = itertools.chain.from_iterable(fields(note) for track in tracks for note in track.notes)
    start, end, pitch, velocity = np.fromiter(values, np.float64).reshape(-1, 4).T
    to_ticks = _TickClock(*midi.get_tempo_changes(), midi.resolution)
    # pretty_midi may split a channel into several tracks, which then share a list of early controls: count each list once.
    controls = [each for track in midi.instruments for each in (track.control_changes, track.pitch_bends)]
    return ParsedMidi(
        ticks_per_quarter=midi.resolution,
        start=to_ticks(start),
        end=to_ticks(end),
        pitch=pitch.astype(np.int64),
        velocity=velocity.astype(np.int64),
        track=np.repeat(np.arange(len(tracks)), [len(track.notes) for track in tracks]),
        tracks=numbered(sources),
        tempo_ticks=to_ticks.ticks,
        qpm=to_ticks.qpm,
        meters=[(float(to_ticks(meter.time)), meter.numerator, meter.denominator) for meter in midi.time_signature_changes],
        controls=sum({id(each): len(each) for each in controls}.values()),
        oddities=collections.Counter(),
    )


class _TickClock:
    """Converts seconds to ticks (float64) by a tempo map: `times` [C] in seconds and `qpm` [C]."""

    def __init__(self, times: np.ndarray, qpm: np.ndarray, ticks_per_quarter: int):
        self.times, self.qpm = np.asarray(times, np.float64), np.asarray(qpm, np.float64)
        self.per_second = self.qpm * ticks_per_quarter / 60
        self.ticks = np.concatenate([[0.0], np.cumsum(np.diff(self.times) * self.per_second[:-1])])

    def __call__(self, seconds: np.ndarray | float) -> np.ndarray:
        row = np.maximum(np.searchsorted(self.times, seconds, "right") - 1, 0)
        return self.ticks[row] + (seconds - self.times[row]) * self.per_second[row]


def to_midi(piece: Piece, split_overlaps: bool = False) -> pretty_midi.PrettyMIDI:
    """`piece` as pretty_midi's objects, an instrument for each track that has notes.

    split_overlaps: whether overlapping notes of one pitch go to further instruments, for players that can't play them on one.
    """
    tracks = piece.tracks
    midi = _load_pretty_midi(piece_to_bytes(dataclasses.replace(piece, tracks=tuple(_named_by_index(tracks)))))
    parts: dict[int, pretty_midi.Instrument] = {}
    for part in midi.instruments:
        index = int(part.name)
        part.name = tracks[index].name
        if parts.setdefault(index, part) is not part and not split_overlaps:
            parts[index].notes += part.notes
    midi.instruments = midi.instruments if split_overlaps else list(parts.values())
    return midi


def piece_to_bytes(piece: Piece) -> bytes:
    """The bytes of a MIDI file with `piece`. Raises ValueError for what MIDI cannot hold, see `midi_bytes`."""
    index = {track[:2]: place for place, track in enumerate(piece.tracks)}
    own = [index[each] for each in piece.notes[["program", "track"]].tolist()]
    scale = max(1, OUTPUT_TICKS_PER_QUARTER // piece.ticks_per_quarter)
    onset, pitch, duration, velocity = (
        piece.notes[name].astype(np.int64) for name in ("onset", "pitch", "duration", "velocity")
    )
    notes = np.stack([onset * scale, (onset + duration) * scale, np.array(own, np.int64), pitch, velocity]).T
    tempos = [(tick * scale, qpm) for tick, qpm in piece.tempos.tolist()]
    meters = [(tick * scale, numerator, denominator) for tick, numerator, denominator in piece.meters.tolist()]
    return midi_bytes(notes, piece.tracks, tempos, meters, piece.ticks_per_quarter * scale)


def at_resolution(piece: Piece, ticks_per_quarter: int, *, loss: QuantizationStats | None = None) -> Piece:
    """`piece` itself if it has `ticks_per_quarter`; otherwise `piece` quantized to that grid.

    loss: counters to which every change is added.
    """
    if piece.ticks_per_quarter == ticks_per_quarter:
        return piece
    return to_piece(read_bytes(piece_to_bytes(piece)), ticks_per_quarter, loss=loss)


def save_midi(piece: Piece, path: str | os.PathLike) -> None:
    """Writes `piece` to a MIDI file, atomically. Raises UserError if it cannot be written."""
    try:
        data = piece_to_bytes(piece)
    except ValueError as error:
        raise UserError(f"cannot write {path}: {error}; change that, or write the piece in parts") from error
    with replacing(path) as temporary:
        temporary.write_bytes(data)
