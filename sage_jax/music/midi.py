"""MIDI files to pieces and back, through pretty_midi; symusic_midi.py reads them too."""

import itertools
import operator
import os
import pathlib
import warnings

import mido
import numpy as np
import pretty_midi

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.grid import ParsedMidi, to_piece
from sage_jax.music.loss import GridLoss
from sage_jax.music.notes import DRUMS, Piece

MAX_BYTES = 8 << 20  # about three million events; parsing more takes minutes
WRITTEN_RESOLUTION = 480  # ticks per quarter in written files, or the nearest multiple of the grid below it


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
    midi = parse_midi(path, max_bytes=max_bytes)
    try:
        return from_midi(midi, ticks_per_quarter, loss=loss)
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


def parse_midi(path, *, max_bytes: int = MAX_BYTES) -> pretty_midi.PrettyMIDI:
    """The file at `path` as pretty_midi reads it. Raises BadMidi."""
    path = check_file(path, max_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tempo events on later tracks: read as they stand
            file = mido.MidiFile(path)
            if file.ticks_per_beat < 1:
                raise no_ticks(path, file.ticks_per_beat)
            return pretty_midi.PrettyMIDI(mido_object=file)
    except BadMidi:
        raise
    except MemoryError as error:
        raise BadMidi("too_large", f"{path} needs more memory than there is; split it into shorter files") from error
    except Exception as error:  # mido and pretty_midi raise whatever a broken file leads them to
        raise broken(path, error) from error


def no_ticks(path: pathlib.Path, ticks_per_beat: int) -> BadMidi:
    """The error of a file without metrical time."""
    return BadMidi(
        "no_ticks",
        f"{path} has {ticks_per_beat} ticks per beat (SMPTE time or a damaged header); save it again "
        "from a music program with metrical time",
    )


def broken(path: pathlib.Path, error: Exception) -> BadMidi:
    """The error of a file that a parser gave up."""
    detail = " ".join(str(error).split()) or type(error).__name__
    return BadMidi("broken", f"{path} is not a MIDI file that can be read ({detail}); save it again from a music program")


def from_midi(
    midi: pretty_midi.PrettyMIDI, ticks_per_quarter: int = 12, *, loss: GridLoss | None = None
) -> Piece:
    """The piece in `midi`, as `to_piece` makes it."""
    return to_piece(columns_of(midi), ticks_per_quarter, loss=loss)


def parse_columns(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """The file at `path` as pretty_midi reads it, as arrays. Raises BadMidi."""
    return columns_of(parse_midi(path, max_bytes=max_bytes))


def columns_of(midi: pretty_midi.PrettyMIDI) -> ParsedMidi:
    """What pretty_midi's objects say, as arrays."""
    tracks = [track for track in midi.instruments if track.notes]
    programs = [DRUMS if track.is_drum else int(track.program) for track in tracks]
    fields = operator.attrgetter("start", "end", "pitch", "velocity")
    values = itertools.chain.from_iterable(fields(note) for track in tracks for note in track.notes)
    start, end, pitch, velocity = np.fromiter(values, np.float64).reshape(-1, 4).T
    times, qpm = midi.get_tempo_changes()
    # Tracks that pretty_midi makes of one channel share the list of what came before their first note.
    controls = [each for track in midi.instruments for each in (track.control_changes, track.pitch_bends)]
    return ParsedMidi(
        start=start,
        end=end,
        pitch=pitch,
        velocity=velocity,
        program=np.repeat(np.array(programs, np.int64), [len(track.notes) for track in tracks]),
        tempo_times=np.asarray(times, np.float64),
        qpm=np.asarray(qpm, np.float64),
        meters=[(change.time, change.numerator, change.denominator) for change in midi.time_signature_changes],
        track_programs=programs,
        controls=sum({id(each): len(each) for each in controls}.values()),
    )


def to_midi(piece: Piece) -> pretty_midi.PrettyMIDI:
    """`piece` as pretty_midi knows it: a track for each program, and one more for each note that would cut its equal.

    MIDI can't tell two notes of one pitch apart on one track, so notes that overlap at the same pitch go to separate
    tracks: `from_midi(to_midi(piece))` has the same notes.
    """
    scale = max(1, WRITTEN_RESOLUTION // piece.ticks_per_quarter)
    midi = pretty_midi.PrettyMIDI(resolution=piece.ticks_per_quarter * scale)
    # pretty_midi has no public way to set a tempo map.
    midi._tick_scales = [
        (int(tick) * scale, 60.0 / (qpm * midi.resolution)) for tick, qpm in piece.tempos.tolist()
    ]
    midi._update_tick_to_time((max(piece.end, int(piece.tempos["tick"][-1]), int(piece.meters["tick"][-1])) + 1) * scale)
    midi.time_signature_changes = [
        pretty_midi.TimeSignature(numerator, denominator, float(piece.seconds(tick)))
        for tick, numerator, denominator in piece.meters.tolist()
    ]
    notes = piece.notes
    starts, ends = piece.seconds(notes["onset"]), piece.seconds(notes["onset"] + notes["duration"])
    voices = _voices(notes)
    for program, voice in np.unique(np.stack([notes["program"], voices], axis=1), axis=0).tolist():
        name = "Drums" if program == DRUMS else pretty_midi.program_to_instrument_name(program)
        track = pretty_midi.Instrument(0 if program == DRUMS else program, is_drum=program == DRUMS, name=name)
        chosen = (notes["program"] == program) & (voices == voice)
        track.notes = [
            pretty_midi.Note(velocity, pitch, start, end)
            for velocity, pitch, start, end in zip(
                notes["velocity"][chosen].tolist(),
                notes["pitch"][chosen].tolist(),
                starts[chosen].tolist(),
                ends[chosen].tolist(),
                strict=True,
            )
        ]
        midi.instruments.append(track)
    return midi


def save_midi(piece: Piece, path: str | os.PathLike) -> None:
    """Writes `piece` to a MIDI file that appears whole or not at all. Raises UserError where it can't be written."""
    with replacing(path) as temporary:
        to_midi(piece).write(str(temporary))


def _voices(notes: np.ndarray) -> np.ndarray:
    """The least voice of each note in which no earlier note of its program and pitch still sounds."""
    voices = np.zeros(len(notes), np.int64)
    order = np.lexsort((notes["onset"], notes["pitch"], notes["program"]))
    sounding: list[int] = []  # the tick at which each voice of this program and pitch falls silent
    previous = None
    for index in order.tolist():
        onset, program, pitch, duration, _ = notes[index].tolist()
        if (program, pitch) != previous:
            previous, sounding = (program, pitch), []
        voice = next((voice for voice, end in enumerate(sounding) if end <= onset), len(sounding))
        sounding[voice:voice + 1] = [onset + duration]
        voices[index] = voice
    return voices
