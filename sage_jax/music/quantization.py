"""Quantizes parsed MIDI to a piece on the tick grid."""

import numpy as np

from sage_jax.music.notes import DEFAULT_METER, METER, NOTE, TEMPO, Piece, bar_ticks
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.reading import ParsedMidi

BEATS_REGROUPED = 4  # beats per bar that replace declared one-beat bars


def to_piece(midi: ParsedMidi, ticks_per_quarter: int = 12, *, loss: QuantizationStats | None = None) -> Piece:
    """The piece in `midi`, with notes moved to the nearest tick.

    loss: counters to which every change is added.
    Four or more consecutive one-beat bars (1/4, common in converted scores) become bars of
    four beats. A meter whose bar is not a whole number of ticks becomes 4/4. Pedal and pitch bends are dropped.
    Raises ValueError for a note beyond 2**30 ticks.
    """
    loss = QuantizationStats() if loss is None else loss
    loss.count(midi.oddities)
    scale = ticks_per_quarter / midi.ticks_per_quarter
    notes = _notes(midi, scale, loss)
    end = int((notes["onset"] + notes["duration"]).max()) if len(notes) else 0
    tempos = _tempos(midi, scale, loss)
    meters = _meters(midi, scale, ticks_per_quarter, end, loss)
    return Piece(notes, tempos, meters, ticks_per_quarter, midi.tracks)


def _nearest(ticks: np.ndarray) -> np.ndarray:
    # Halves round up. The margin covers ticks converted from seconds, whose float error can put a half slightly lower.
    return np.floor(ticks + 0.5 + 1e-6)


def _notes(midi: ParsedMidi, scale: float, loss: QuantizationStats) -> np.ndarray:
    loss.tracks += len(midi.tracks)
    loss.controls_dropped += midi.controls
    if not len(midi.start):
        return np.zeros(0, NOTE)
    onset, end = midi.start * scale, midi.end * scale
    start = _nearest(onset)
    duration = np.maximum(_nearest(end) - start, 1)
    if len(start) and max(start.max(), duration.max()) >= 2**30:
        raise ValueError("a note lies beyond 2**30 ticks")
    notes = np.zeros(len(start), NOTE)
    notes["onset"], notes["duration"] = start, duration
    notes["pitch"], notes["velocity"] = midi.pitch, np.clip(midi.velocity, 1, 127)
    notes["program"], notes["track"] = midi.program, np.array([track.track for track in midi.tracks])[midi.track]

    moved = np.abs(onset - start)
    qpm = midi.qpm
    if len(qpm) > 1:
        qpm = qpm[np.searchsorted(midi.tempo_ticks, midi.start, "right") - 1]
    moved_ms = moved * 60_000 / (qpm * midi.ticks_per_quarter * scale)
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
    return np.sort(values).sum() if values.any() else 0.0  # sorted: the sum has the same bits for every order of the notes


def _tempos(midi: ParsedMidi, scale: float, loss: QuantizationStats) -> np.ndarray:
    # MIDI stores whole microseconds per quarter, so 105 qpm is read as 105.0001; rounding to two decimals restores it.
    tempos = np.zeros(len(midi.qpm), TEMPO)
    tempos["tick"], tempos["qpm"] = _nearest(midi.tempo_ticks * scale), np.maximum(np.round(midi.qpm, 2), 0.01)
    loss.tempos += len(tempos)
    tempos = _last_per_tick(tempos)
    kept = np.append(True, np.diff(tempos["qpm"]) != 0)
    loss.tempos_merged += len(midi.qpm) - int(np.count_nonzero(kept))
    return tempos[kept]


def _meters(midi: ParsedMidi, scale: float, ticks_per_quarter: int, end: int, loss: QuantizationStats) -> np.ndarray:
    rows: list[tuple[int, int, int]] = [(0, *DEFAULT_METER)]
    for at, numerator, denominator in midi.meters:
        tick = int(_nearest(np.array(at * scale)))
        if numerator < 1 or denominator > 64 or 4 * ticks_per_quarter * numerator % denominator:
            numerator, denominator = DEFAULT_METER
            loss.meters_replaced += 1
        rows.append((tick, numerator, denominator))
    meters = _last_per_tick(np.array(rows, METER))
    loss.meters += len(midi.meters)
    loss.meters_merged += len(midi.meters) - len({tick for tick, *_ in rows[1:]})

    lengths = np.diff(np.append(meters["tick"], max(end, int(meters["tick"][-1]))))
    bars = lengths // bar_ticks(meters["numerator"], meters["denominator"], ticks_per_quarter)
    one_beat = (meters["numerator"] == 1) & (meters["denominator"] >= 4) & (bars >= BEATS_REGROUPED)
    meters["numerator"][one_beat] = BEATS_REGROUPED
    loss.meters_regrouped += int(one_beat.sum())
    return meters


def _last_per_tick(rows: np.ndarray) -> np.ndarray:
    """`rows` sorted by tick, with the last row of each tick."""
    rows = rows[np.argsort(rows["tick"], kind="stable")]
    return rows[np.append(np.diff(rows["tick"]) > 0, True)]
