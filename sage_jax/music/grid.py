"""Parsed MIDI, whoever parsed it, to a piece on the grid."""

import dataclasses

import numpy as np

from sage_jax.music.loss import GridLoss
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, METER, NOTE, TEMPO, Piece, bar_ticks

BEATS_REGROUPED = 4  # beats to a bar where a file declares bars of one beat


@dataclasses.dataclass(frozen=True)
class ParsedMidi:
    """What a MIDI file says in seconds, as far as a piece has a place for it.

    start, end, pitch, velocity, program: arrays [N] of the notes, program DRUMS for drums; their order tells nothing.
    tempo_times, qpm: arrays [C] of the tempo map, from 0 seconds. meters: (seconds, numerator, denominator) of each change.
    track_programs: the program of each track with notes. controls: control changes, pedal among them, and pitch bends.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray
    tempo_times: np.ndarray
    qpm: np.ndarray
    meters: list[tuple[float, int, int]]
    track_programs: list[int]
    controls: int


def to_piece(midi: ParsedMidi, ticks_per_quarter: int = 12, *, loss: GridLoss | None = None) -> Piece:
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

    def __init__(self, midi: ParsedMidi, ticks_per_quarter: int):
        self.ticks_per_quarter = ticks_per_quarter
        self.times, self.qpm = midi.tempo_times, midi.qpm
        self.per_second = self.qpm * ticks_per_quarter / 60
        self.ticks = np.concatenate([[0.0], np.cumsum(np.diff(self.times) * self.per_second[:-1])])

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        row = np.maximum(np.searchsorted(self.times, seconds, "right") - 1, 0)
        return self.ticks[row] + (seconds - self.times[row]) * self.per_second[row]

    def ticks_per_second(self, seconds: np.ndarray) -> np.ndarray:
        return self.per_second[np.maximum(np.searchsorted(self.times, seconds, "right") - 1, 0)]


def _nearest(ticks: np.ndarray) -> np.ndarray:
    # Halves go up; the margin keeps them together where seconds, which are sums of floats, put them a hair below.
    return np.floor(ticks + 0.5 + 1e-6)


def _notes(midi: ParsedMidi, clock: _Clock, loss: GridLoss) -> np.ndarray:
    loss.tracks += len(midi.track_programs)
    loss.tracks_merged += len(midi.track_programs) - len(set(midi.track_programs))
    loss.controls_dropped += midi.controls
    if not len(midi.start):
        return np.zeros(0, NOTE)
    seconds, end = midi.start, clock(midi.end)
    onset = clock(seconds)
    start = _nearest(onset)
    duration = np.maximum(_nearest(end) - start, 1)
    if len(start) and max(start.max(), duration.max()) >= 2**30:
        raise ValueError("a note lies beyond two to the thirty ticks")
    notes = np.zeros(len(start), NOTE)
    notes["onset"], notes["duration"] = start, duration
    notes["pitch"], notes["velocity"] = midi.pitch, np.clip(midi.velocity, 1, 127)
    notes["program"] = midi.program

    moved = np.abs(onset - start)
    moved_ms = 1000 * moved / clock.ticks_per_second(seconds)
    stretched = np.abs((end - onset) - duration)
    loss.notes += len(notes)
    loss.onset_error_ticks += _sum(moved)
    loss.onset_error_ticks_max = max(loss.onset_error_ticks_max, moved.max())
    loss.onset_error_ms += _sum(moved_ms)
    loss.onset_error_ms_max = max(loss.onset_error_ms_max, moved_ms.max())
    loss.duration_error_ticks += _sum(stretched)
    loss.duration_error_ticks_max = max(loss.duration_error_ticks_max, stretched.max())
    return notes


def _sum(values: np.ndarray) -> float:
    return np.sort(values).sum()  # whatever the order of the notes, to the last bit


def _tempos(clock: _Clock, loss: GridLoss) -> np.ndarray:
    # MIDI stores whole microseconds per quarter, so 105 qpm comes back as 105.0001: two decimals are what it can tell.
    rows = [(0, DEFAULT_QPM)] + list(zip(_nearest(clock.ticks), np.round(clock.qpm, 2), strict=True))
    tempos = _last_per_tick(np.array(rows, TEMPO))
    loss.tempos += len(clock.ticks)
    loss.tempos_merged += len(rows) - 1 - len(tempos)
    return tempos


def _meters(midi: ParsedMidi, clock: _Clock, end: int, loss: GridLoss) -> np.ndarray:
    rows = [(0, *DEFAULT_METER)]
    for seconds, *meter in midi.meters:
        tick = int(_nearest(clock(np.float64(seconds))))
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
