"""Notes, tempos and meters as the bytes of a standard MIDI file in which nothing is ambiguous.

Every program has a channel of a port to itself, drums channel 10, and notes of one pitch that overlap go to separate tracks. So any
reader finds the notes that were written.
"""

import heapq
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import pretty_midi

from sage_jax.music.messages import END_OF_TRACK, METER, NOTE_OFF, NOTE_ON, PORT, PROGRAM, TEMPO
from sage_jax.music.notes import DRUMS
from sage_jax.music.reading import CHANNELS, DRUM_CHANNEL, MICROSECONDS

TRACK_NAME = 0x03
MAX_TRACKS = 2**16 - 1
MAX_DELTA = 2**28  # ticks that fit into four bytes of seven bits
OFF_VELOCITY = 64


def midi_bytes(
    notes: np.ndarray, tempos: Iterable[tuple[int, float]], meters: Iterable[tuple[int, int, int]], ticks_per_quarter: int
) -> bytes:
    """A format 1 file of notes, int64 [N, 5] of start, end, program, pitch and velocity, in ticks.

    tempos: (tick, quarters per minute). meters: (tick, numerator, denominator). Raises ValueError for a rest too long for MIDI, and
    for more voices than it has tracks.
    """
    changes = [(tick, _meta(METER, bytes([over, under.bit_length() - 1, 24, 8]))) for tick, over, under in meters]
    changes += [(tick, _meta(TEMPO, round(MICROSECONDS / qpm).to_bytes(3, "big"))) for tick, qpm in tempos]
    tracks, now = [b""], 0
    for tick, event in sorted(changes, key=lambda change: change[0]):
        tracks[0] += _number(tick - now) + event
        now = tick
    start, end, program, pitch, velocity = notes.T
    voice = voices(start, end, program * 128 + pitch)
    width = int(voice.max(initial=0)) + 1
    if width > MAX_TRACKS:
        raise ValueError(f"{width:,} voices are too many for a MIDI file")
    line = program * width + voice
    used = np.bincount(line) > 0
    track = (np.cumsum(used) - 1)[line]
    played = (np.flatnonzero(used) // width).tolist()  # by each track
    places = _places(sorted(set(played)))
    channels = np.array([places[number][1] for number in played], np.int64)
    tracks += [_head(number, *places[number]) + body for number, body in zip(played, _bodies(notes, track, channels), strict=True)]
    if len(tracks) > MAX_TRACKS:
        raise ValueError(f"{len(tracks):,} voices are too many for a MIDI file")
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), ticks_per_quarter)
    ended = (track + b"\0" + _meta(END_OF_TRACK, b"") for track in tracks)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in ended)


def _places(programs: Sequence[int]) -> dict[int, tuple[int, int]]:
    """(port, channel) of each program."""
    pitched = [program for program in programs if program != DRUMS]
    free = [channel for channel in range(CHANNELS) if channel != DRUM_CHANNEL]
    places = {program: (place // len(free), free[place % len(free)]) for place, program in enumerate(pitched)}
    return places | {DRUMS: (0, DRUM_CHANNEL)}


def _head(program: int, port: int, channel: int) -> bytes:
    """What a track begins with."""
    name = "Drums" if program == DRUMS else pretty_midi.program_to_instrument_name(program)
    events = [_meta(TRACK_NAME, name.encode("ascii")), _meta(PORT, bytes([port]))]
    events.append(bytes([PROGRAM | channel, program % DRUMS]))
    return b"".join(b"\0" + event for event in events)


def _bodies(notes: np.ndarray, track: np.ndarray, channels: np.ndarray) -> list[bytes]:
    """The bytes of the note-ons and note-offs of each track. track: int64 [N], of each note; channels: of each track."""
    start, end, _, pitch, velocity = notes.T
    tick = np.concatenate([end, start])
    whose = np.concatenate([track, track])
    is_on = np.repeat([0, 1], len(notes))
    order = np.argsort((whose * (int(end.max(initial=0)) + 1) + tick) * 2 + is_on)  # at one tick the note-offs come first
    tick, whose, is_on = tick[order], whose[order], is_on[order]
    first = np.diff(whose, prepend=-1) != 0
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
    rows[:, 4] = np.where(is_on, NOTE_ON, NOTE_OFF) | channels[whose]
    rows[:, 5] = np.concatenate([pitch, pitch])[order]
    rows[:, 6] = np.concatenate([np.full(len(notes), OFF_VELOCITY), velocity])[order]
    data = rows[kept].tobytes()
    borders = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])[np.searchsorted(whose, np.arange(len(channels) + 1))]
    return [data[low:high] for low, high in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)]


def voices(start: np.ndarray, end: np.ndarray, key: np.ndarray) -> np.ndarray:
    """int64 [N], the least voice of each note in which no earlier note of its key still sounds."""
    voice = np.zeros(len(start), np.int64)
    order = np.argsort(key * (int(start.max(initial=0)) + 1) + start)
    keys = key[order]
    # Where any two notes of a key overlap, two neighbours do.
    overlaps = (np.diff(keys) == 0) & (start[order][1:] < end[order][:-1])
    among = np.zeros(int(key.max(initial=0)) + 1, bool)
    among[keys[1:][overlaps]] = True
    order = order[among[keys]]
    order = order[np.lexsort((end[order], start[order], key[order]))]
    chosen, sounding, free, current = [], [], [], -1  # sounding: (end, voice), the first to end first
    for each, begin, until in zip(key[order].tolist(), start[order].tolist(), end[order].tolist(), strict=True):
        if each != current:
            sounding, free, current = [], [], each
        while sounding and sounding[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(sounding)[1])
        place = heapq.heappop(free) if free else len(sounding)
        heapq.heappush(sounding, (until, place))
        chosen.append(place)
    voice[order] = chosen
    return voice


def _meta(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind, len(content)]) + content


def _number(value: int) -> bytes:
    """A number of up to four bytes of seven bits. Raises ValueError for a larger one."""
    if value >= MAX_DELTA:
        raise ValueError(f"a rest of {value:,} ticks is too long for a MIDI file")
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))
