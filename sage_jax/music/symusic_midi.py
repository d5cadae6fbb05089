"""MIDI files through symusic, which parses them in C++: the same notes as pretty_midi's, many times faster."""

import importlib.util
import struct

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.grid import ParsedMidi
from sage_jax.music.midi import MAX_BYTES, BadMidi, broken, check_file, no_ticks
from sage_jax.music.notes import DEFAULT_QPM, DRUMS

MAX_TICK = 10_000_000  # later than that pretty_midi takes a file for damaged
DENOMINATOR = {0: 256}  # symusic has eight bits for it


def is_installed() -> bool:
    return importlib.util.find_spec("symusic") is not None


def check_installed() -> None:
    """Raises UserError where symusic is not installed."""
    if not is_installed():
        raise UserError(
            "preprocess.reader is 'symusic', which is not installed; pip install -e '.[symusic]', or take 'pretty_midi'"
        )


def parse_symusic(path, *, max_bytes: int = MAX_BYTES) -> ParsedMidi:
    """The file at `path` as `parse_midi` would read it, to the last bit of a second. Raises BadMidi.

    It differs where symusic keeps less of a file than pretty_midi looks at. A note-off on the very tick of its note-on drops
    the note there, and in some files is passed over here, so that the note goes on to the next one. A note that sounds through
    a change of program has the program of its end there, and that of its beginning here. A note-on that no note-off of its own
    follows ends with the next one of its pitch there, and is gone here.
    """
    import symusic

    path = check_file(path, max_bytes)
    try:
        data = path.read_bytes()
        if data[:4] == b"MThd" and len(data) >= 14 and (ticks := struct.unpack(">h", data[12:14])[0]) < 1:
            raise no_ticks(path, ticks)
        score, conductor = symusic.Score.from_midi(data), _conductor(data)
        return _parsed(score, symusic.Score.from_midi(conductor) if conductor else score)
    except BadMidi:
        raise
    except OSError as error:
        raise BadMidi("unreadable", f"{path}: {error.strerror}; give the path of a MIDI file") from error
    except MemoryError as error:
        raise BadMidi("too_large", f"{path} needs more memory than there is; split it into shorter files") from error
    except Exception as error:  # symusic raises whatever a broken file leads it to
        raise broken(path, error) from error


def _conductor(data: bytes) -> bytes | None:
    """A file of the first track alone, where others have tempos or meters too: those count only on the first one.

    Raises ValueError where there is no track, or one is missing or cut short, which symusic passes over.
    """
    ends = [8 + int.from_bytes(data[4:8], "big")]
    for number in range(int.from_bytes(data[10:12], "big")):
        begin = ends[-1]
        ends.append(begin + 8 + int.from_bytes(data[begin + 4 : begin + 8], "big"))
        if data[begin : begin + 4] != b"MTrk" or ends[-1] > len(data):
            raise ValueError(f"track {number + 1} is missing or cut short")
    if len(ends) < 2:
        raise ValueError("it has no tracks")
    if data.find(b"\xff\x51\x03", ends[1]) < 0 and data.find(b"\xff\x58\x04", ends[1]) < 0:
        return None
    return data[:10] + b"\0\1" + data[12 : ends[1]]


def _parsed(score, conductor) -> ParsedMidi:
    tracks = []
    for track in score.tracks:
        columns = track.notes.numpy()
        sounding = columns["duration"] > 0
        if sounding.any():
            tracks.append((DRUMS if track.is_drum else track.program, {name: each[sounding] for name, each in columns.items()}))
    programs = [program for program, _ in tracks]
    lengths = [len(columns["time"]) for _, columns in tracks]
    start, duration, pitch, velocity = (
        np.concatenate([columns[name] for _, columns in tracks] or [np.zeros(0)]).astype(np.int64)
        for name in ("time", "duration", "pitch", "velocity")
    )
    end = _close(np.repeat(np.arange(len(tracks)), lengths) * 128 + pitch, start, start + duration)
    clock = _TickClock(conductor.tempos.numpy(), score.tpq)
    meters = conductor.time_signatures.numpy()
    meters = [meters[name].tolist() for name in ("time", "numerator", "denominator")]
    if not all(meters[1]):
        raise ValueError("a meter of no beats")
    if any(abs(key.key) > 7 or key.tonality not in (0, 1) for key in score.key_signatures):
        raise ValueError("a key of more than seven sharps or flats")
    latest = max((int(times.max()) for times in (end, clock.ticks, np.array(meters[0])) if len(times)), default=0)
    if latest + 1 > MAX_TICK:
        raise ValueError(f"its largest tick is {latest}")
    return ParsedMidi(
        start=clock(start),
        end=clock(end),
        pitch=pitch,
        velocity=velocity,
        program=np.repeat(np.array(programs, np.int64), lengths),
        tempo_times=clock.times,
        qpm=60.0 / (clock.scales * score.tpq),
        meters=[
            (float(clock(np.array(tick))), numerator, DENOMINATOR.get(denominator, denominator))
            for tick, numerator, denominator in zip(*meters, strict=True)
        ],
        track_programs=programs,
        controls=sum(len(track.controls) + len(track.pitch_bends) for track in score.tracks),
    )


def _close(voice: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The ends of notes where a note-off ends all that its pitch (of a track: `voice`) has begun before, not the first only."""
    onset = (voice << 32) + start
    closing = np.sort((voice << 32) + end)
    return closing[np.searchsorted(closing, onset, "right")] & 0xFFFFFFFF


class _TickClock:
    """A file's ticks to seconds, with the sums and products in the order in which pretty_midi has them."""

    def __init__(self, tempos: dict[str, np.ndarray], ticks_per_quarter: int):
        scales = [(0, 60.0 / (DEFAULT_QPM * ticks_per_quarter))]
        for tick, tempo in zip(tempos["time"].tolist(), tempos["mspq"].tolist(), strict=True):
            scale = 60.0 / ((6e7 / tempo) * ticks_per_quarter)
            if tick == 0:
                scales = [(0, scale)]
            elif scale != scales[-1][1]:
                scales.append((tick, scale))
        times = [0.0]
        for (begin, scale), (end, _) in zip(scales, scales[1:], strict=False):
            times.append(times[-1] + scale * (end - begin))
        self.ticks, self.scales = (np.array(column) for column in zip(*scales, strict=True))
        self.times = np.array(times)

    def __call__(self, ticks: np.ndarray) -> np.ndarray:
        row = np.searchsorted(self.ticks, ticks, "right") - 1
        return self.times[row] + self.scales[row] * (ticks - self.ticks[row])
