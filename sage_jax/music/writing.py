"""Writes notes, tempos and meters as an unambiguous standard MIDI file.

Each program has its own channel and port; drums use channel 10. Overlapping notes of one pitch go to separate tracks. So every
reader recovers the same notes.
"""

import heapq
import itertools
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import pretty_midi

from sage_jax.music.messages import END_OF_TRACK, METER, NOTE_OFF, NOTE_ON, PORT, PROGRAM, TEMPO
from sage_jax.music.notes import DRUMS
from sage_jax.music.reading import CHANNELS, DRUM_CHANNEL, MICROSECONDS_PER_MINUTE

TRACK_NAME = 0x03
MAX_TRACKS = 2**16 - 1
MAX_DELTA = 2**28  # exclusive limit of a delta time in ticks: four bytes with seven bits each
OFF_VELOCITY = 64


def midi_bytes(
    notes: np.ndarray, tempos: Iterable[tuple[int, float]], meters: Iterable[tuple[int, int, int]], ticks_per_quarter: int
) -> bytes:
    """The bytes of a format 1 file.

    notes: int64 [N, 5], columns start, end, program, pitch and velocity; times in ticks.
    tempos: (tick, quarters per minute). meters: (tick, numerator, denominator).
    Raises ValueError for a rest that is too long for MIDI and for more voices than a file has tracks.
    """
    changes = [(tick, _meta(METER, bytes([num, den.bit_length() - 1, 24, 8]))) for tick, num, den in meters]
    changes += [(tick, _meta(TEMPO, round(MICROSECONDS_PER_MINUTE / qpm).to_bytes(3, "big"))) for tick, qpm in tempos]
    tracks, now = [b""], 0
    for tick, event in sorted(changes, key=lambda change: change[0]):
        tracks[0] += _variable_length(tick - now) + event
        now = tick
    start, end, program, pitch, _ = notes.T
    voice = voices(start, end, program * 128 + pitch)
    num_voices = int(voice.max(initial=0)) + 1
    if num_voices > MAX_TRACKS:
        raise ValueError(f"{num_voices:,} voices are too many for a MIDI file")
    key = program * num_voices + voice
    used = np.bincount(key) > 0
    track = (np.cumsum(used) - 1)[key]
    programs = (np.flatnonzero(used) // num_voices).tolist()  # of each track
    assigned = _assign_channels(sorted(set(programs)))
    channels = np.array([assigned[number][1] for number in programs], np.int64)
    bodies = _track_bodies(notes, track, channels)
    tracks += [_track_header(number, *assigned[number]) + body for number, body in zip(programs, bodies, strict=True)]
    if len(tracks) > MAX_TRACKS:
        raise ValueError(f"{len(tracks):,} voices are too many for a MIDI file")
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), ticks_per_quarter)
    ended = (track + b"\0" + _meta(END_OF_TRACK, b"") for track in tracks)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in ended)


def _assign_channels(programs: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Assigns a (port, channel) to each program."""
    pitched = [program for program in programs if program != DRUMS]
    free = [channel for channel in range(CHANNELS) if channel != DRUM_CHANNEL]
    assigned = {program: (index // len(free), free[index % len(free)]) for index, program in enumerate(pitched)}
    return assigned | {DRUMS: (0, DRUM_CHANNEL)}


def _track_header(program: int, port: int, channel: int) -> bytes:
    """The first events of a track: name, port and program change."""
    name = "Drums" if program == DRUMS else pretty_midi.program_to_instrument_name(program)
    events = [_meta(TRACK_NAME, name.encode("ascii")), _meta(PORT, bytes([port]))]
    events.append(bytes([PROGRAM | channel, program % DRUMS]))
    return b"".join(b"\0" + event for event in events)


def _track_bodies(notes: np.ndarray, track: np.ndarray, channels: np.ndarray) -> list[bytes]:
    """The note-ons and note-offs of each track, as bytes.

    notes: int64 [N, 5] as in `midi_bytes`. track: int64 [N], the track of each note. channels: int64 [tracks].
    """
    start, end, _, pitch, velocity = notes.T
    tick = np.concatenate([end, start])
    event_track = np.concatenate([track, track])
    is_on = np.repeat([0, 1], len(notes))
    order = np.argsort((event_track * (int(end.max(initial=0)) + 1) + tick) * 2 + is_on)  # at one tick note-offs come first
    tick, event_track, is_on = tick[order], event_track[order], is_on[order]
    first = np.diff(event_track, prepend=-1) != 0
    delta = np.diff(tick, prepend=0)
    delta[first] = tick[first]
    if delta.max(initial=0) >= MAX_DELTA:
        raise ValueError(f"a rest of {delta.max():,} ticks is too long for a MIDI file")
    rows = np.zeros((len(tick), 7), np.uint8)
    rows[:, 3] = delta & 0x7F
    kept = np.ones(rows.shape, bool)
    kept[:, :3] = False
    for byte in range(1, 4):
        longer = np.flatnonzero(delta >= 1 << 7 * byte)
        rows[longer, 3 - byte] = delta[longer] >> 7 * byte & 0x7F | 0x80
        kept[longer, 3 - byte] = True
    rows[:, 4] = np.where(is_on, NOTE_ON, NOTE_OFF) | channels[event_track]
    rows[:, 5] = np.concatenate([pitch, pitch])[order]
    rows[:, 6] = np.concatenate([np.full(len(notes), OFF_VELOCITY), velocity])[order]
    data = rows[kept].tobytes()
    byte_offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    bounds = byte_offsets[np.searchsorted(event_track, np.arange(len(channels) + 1))].tolist()
    return [data[low:high] for low, high in itertools.pairwise(bounds)]


def voices(start: np.ndarray, end: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The lowest free voice of each note, int64 [N]: no earlier note with the same key still sounds in it."""
    voice = np.zeros(len(start), np.int64)
    order = np.argsort(key * (int(start.max(initial=0)) + 1) + start)
    keys = key[order]
    # If any two notes of a key overlap, two consecutive ones do. Other keys need only voice 0.
    overlaps = (np.diff(keys) == 0) & (start[order][1:] < end[order][:-1])
    has_overlap = np.zeros(int(key.max(initial=0)) + 1, bool)
    has_overlap[keys[1:][overlaps]] = True
    order = order[has_overlap[keys]]
    order = order[np.lexsort((end[order], start[order], key[order]))]
    chosen, sounding, free, current = [], [], [], -1  # sounding: heap of (end, voice)
    for note_key, begin, until in zip(key[order].tolist(), start[order].tolist(), end[order].tolist(), strict=True):
        if note_key != current:
            sounding, free, current = [], [], note_key
        while sounding and sounding[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(sounding)[1])
        lowest = heapq.heappop(free) if free else len(sounding)
        heapq.heappush(sounding, (until, lowest))
        chosen.append(lowest)
    voice[order] = chosen
    return voice


def _meta(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind, len(content)]) + content


def _variable_length(value: int) -> bytes:
    """A variable-length quantity of up to four bytes. Raises ValueError for a larger value."""
    if value >= MAX_DELTA:
        raise ValueError(f"a rest of {value:,} ticks is too long for a MIDI file")
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))
