"""MIDI files to pieces and back, through pretty_midi."""

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
from sage_jax.music.loss import GridLoss
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS, METER, NOTE, TEMPO, Piece, bar_ticks

MAX_BYTES = 8 << 20  # about three million events; parsing more takes minutes
BEATS_REGROUPED = 4  # beats to a bar where a file declares bars of one beat
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


def parse_midi(path, *, max_bytes: int = MAX_BYTES) -> pretty_midi.PrettyMIDI:
    """The file at `path` as pretty_midi reads it. Raises BadMidi."""
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tempo events on later tracks: read as they stand
            file = mido.MidiFile(path)
            if file.ticks_per_beat < 1:
                raise BadMidi(
                    "no_ticks",
                    f"{path} has {file.ticks_per_beat} ticks per beat (SMPTE time or a damaged header); save it again "
                    "from a music program with metrical time",
                )
            return pretty_midi.PrettyMIDI(mido_object=file)
    except BadMidi:
        raise
    except MemoryError as error:
        raise BadMidi("too_large", f"{path} needs more memory than there is; split it into shorter files") from error
    except Exception as error:  # mido and pretty_midi raise whatever a broken file leads them to
        detail = " ".join(str(error).split()) or type(error).__name__
        raise BadMidi(
            "broken", f"{path} is not a MIDI file that can be read ({detail}); save it again from a music program"
        ) from error


def from_midi(
    midi: pretty_midi.PrettyMIDI, ticks_per_quarter: int = 12, *, loss: GridLoss | None = None
) -> Piece:
    """The piece in `midi`, its notes moved to the nearest tick; what that loses is added to `loss`.

    Tracks of one program are merged. Runs of at least four one-beat bars (1/4, as many converted scores declare) become
    bars of four beats; a meter whose bar is not a whole number of ticks becomes 4/4. Pedal and pitch bends are dropped.
    """
    loss = GridLoss() if loss is None else loss
    clock = _Clock(midi, ticks_per_quarter)
    notes = _notes(midi, clock, loss)
    tempos = _tempos(clock, loss)
    end = int((notes["onset"] + notes["duration"]).max()) if len(notes) else 0
    meters = _meters(midi, clock, end, loss)
    return Piece(notes, tempos, meters, ticks_per_quarter)


class _Clock:
    """Seconds to ticks (float64) through a file's tempo map."""

    def __init__(self, midi: pretty_midi.PrettyMIDI, ticks_per_quarter: int):
        self.ticks_per_quarter = ticks_per_quarter
        times, self.qpm = midi.get_tempo_changes()
        self.times = np.asarray(times, np.float64)
        self.per_second = np.asarray(self.qpm, np.float64) * ticks_per_quarter / 60
        self.ticks = np.concatenate([[0.0], np.cumsum(np.diff(self.times) * self.per_second[:-1])])

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        row = np.maximum(np.searchsorted(self.times, seconds, "right") - 1, 0)
        return self.ticks[row] + (seconds - self.times[row]) * self.per_second[row]

    def ticks_per_second(self, seconds: np.ndarray) -> np.ndarray:
        return self.per_second[np.maximum(np.searchsorted(self.times, seconds, "right") - 1, 0)]


def _nearest(ticks: np.ndarray) -> np.ndarray:
    # Halves go up; the margin keeps them together where seconds, which are sums of floats, put them a hair below.
    return np.floor(ticks + 0.5 + 1e-6)


def _notes(midi: pretty_midi.PrettyMIDI, clock: _Clock, loss: GridLoss) -> np.ndarray:
    tracks = [track for track in midi.instruments if track.notes]
    programs = [DRUMS if track.is_drum else track.program for track in tracks]
    loss.tracks += len(tracks)
    loss.tracks_merged += len(tracks) - len(set(programs))
    loss.controls_dropped += sum(len(track.control_changes) + len(track.pitch_bends) for track in midi.instruments)
    if not tracks:
        return np.zeros(0, NOTE)
    fields = operator.attrgetter("start", "end", "pitch", "velocity")
    values = itertools.chain.from_iterable(fields(note) for track in tracks for note in track.notes)
    columns = np.fromiter(values, np.float64).reshape(-1, 4)
    seconds, end = columns[:, 0], clock(columns[:, 1])
    onset = clock(seconds)
    start = _nearest(onset)
    duration = np.maximum(_nearest(end) - start, 1)
    if len(start) and max(start.max(), duration.max()) >= 2**30:
        raise ValueError("a note lies beyond two to the thirty ticks")
    notes = np.zeros(len(columns), NOTE)
    notes["onset"], notes["duration"] = start, duration
    notes["pitch"], notes["velocity"] = columns[:, 2], np.clip(columns[:, 3], 1, 127)
    notes["program"] = np.repeat(programs, [len(track.notes) for track in tracks])

    moved = np.abs(onset - start)
    moved_ms = 1000 * moved / clock.ticks_per_second(seconds)
    stretched = np.abs((end - onset) - duration)
    loss.notes += len(notes)
    loss.onset_error_ticks += moved.sum()
    loss.onset_error_ticks_max = max(loss.onset_error_ticks_max, moved.max())
    loss.onset_error_ms += moved_ms.sum()
    loss.onset_error_ms_max = max(loss.onset_error_ms_max, moved_ms.max())
    loss.duration_error_ticks += stretched.sum()
    loss.duration_error_ticks_max = max(loss.duration_error_ticks_max, stretched.max())
    return notes


def _tempos(clock: _Clock, loss: GridLoss) -> np.ndarray:
    # MIDI stores whole microseconds per quarter, so 105 qpm comes back as 105.0001: two decimals are what it can tell.
    rows = [(0, DEFAULT_QPM)] + list(zip(_nearest(clock.ticks), np.round(clock.qpm, 2), strict=True))
    tempos = _last_per_tick(np.array(rows, TEMPO))
    loss.tempos += len(clock.ticks)
    loss.tempos_merged += len(rows) - 1 - len(tempos)
    return tempos


def _meters(midi: pretty_midi.PrettyMIDI, clock: _Clock, end: int, loss: GridLoss) -> np.ndarray:
    rows = [(0, *DEFAULT_METER)]
    for change in midi.time_signature_changes:
        tick, meter = int(_nearest(clock(np.float64(change.time)))), (change.numerator, change.denominator)
        if meter[0] < 1 or meter[1] > 64 or 4 * clock.ticks_per_quarter * meter[0] % meter[1]:
            meter = DEFAULT_METER
            loss.meters_replaced += 1
        rows.append((tick, *meter))
    meters = _last_per_tick(np.array(rows, METER))
    loss.meters += len(rows) - 1
    loss.meters_merged += max(0, len(rows) - 1 - len(meters))

    lengths = np.diff(np.append(meters["tick"], max(end, int(meters["tick"][-1]))))
    bars = lengths // bar_ticks(meters["numerator"], meters["denominator"], clock.ticks_per_quarter)
    one_beat = (meters["numerator"] == 1) & (meters["denominator"] >= 4) & (bars >= BEATS_REGROUPED)
    meters["numerator"][one_beat] = BEATS_REGROUPED
    loss.meters_regrouped += int(one_beat.sum())
    return meters


def _last_per_tick(rows: np.ndarray) -> np.ndarray:
    rows = rows[np.argsort(rows["tick"], kind="stable")]
    return rows[np.append(np.diff(rows["tick"]) > 0, True)]


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
