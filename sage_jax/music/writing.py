"""Writes notes, tempos and meters as an unambiguous standard MIDI file.

Each program has its own channel and port, and further tracks of one program have their own as long as there are any; drums use
channel 10. Overlapping notes of one pitch go to separate MIDI tracks. So every reader recovers the same notes. A player may
mix up note-offs of the same pitch in two tracks on one channel; a reader matches them by track.

Each MIDI track has the name of its track, and a text event, "sage_jax track=N", with the number of the track among those of its
program. MIDI tracks with the same number and program are one track.
"""

import functools
import heapq
import itertools
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from sage_jax.music.file_tracks import MARK, clean
from sage_jax.music.messages import END_OF_TRACK, METER, NOTE_OFF, NOTE_ON, PORT, PROGRAM, TEMPO, TEXT, TRACK_NAME
from sage_jax.music.system_events import CHANNELS, DRUM_CHANNEL, MICROSECONDS_PER_MINUTE
from sage_jax.music.tracks import DRUMS, Track

MAX_TRACKS = 2**16 - 1
MAX_TEMPO = 2**24  # exclusive limit of a tempo in microseconds per quarter: three bytes
MAX_DELTA = 2**28  # exclusive limit of a delta time in ticks: four bytes with seven bits each
OFF_VELOCITY = 64


def midi_bytes(
    notes: np.ndarray,
    tracks: Sequence[Track],
    tempos: Iterable[tuple[int, float]],
    meters: Iterable[tuple[int, int, int]],
    ticks_per_quarter: int,
) -> bytes:
    """The bytes of a format 1 file.

    notes: int64 [N, 5], columns start, end, index in `tracks`, pitch and velocity; times in ticks. Tracks without notes are not
    written.
    tempos: (tick, quarters per minute). meters: (tick, numerator, denominator).
    Raises ValueError for what MIDI cannot hold: a long rest, a very slow or fast tempo, a time signature such as 4/12, more
    voices than a file has tracks.
    """
    changes = [(tick, _meter(numerator, denominator)) for tick, numerator, denominator in meters]
    changes += [(tick, _tempo(qpm)) for tick, qpm in tempos]
    chunks, now = [b""], 0
    for tick, event in sorted(changes, key=lambda change: change[0]):
        chunks[0] += _variable_length(tick - now) + event
        now = tick
    start, end, index, pitch, _ = notes.T
    voice = voices(start, end, index * 128 + pitch)
    num_voices = int(voice.max(initial=0)) + 1
    if num_voices > MAX_TRACKS:
        raise ValueError(f"{num_voices:,} voices are too many for a MIDI file")
    key = index * num_voices + voice
    used = np.bincount(key) > 0
    written = [tracks[place] for place in (np.flatnonzero(used) // num_voices).tolist()]  # the track of each chunk
    assigned = _assign_channels(list(dict.fromkeys(written)))
    channels = np.array([assigned[track][1] for track in written], np.int64)
    bodies = _track_bodies(notes, (np.cumsum(used) - 1)[key], channels)
    chunks += [_track_header(track, *assigned[track]) + body for track, body in zip(written, bodies, strict=True)]
    if len(chunks) > MAX_TRACKS:
        raise ValueError(f"{len(chunks):,} voices are too many for a MIDI file")
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), ticks_per_quarter)
    ended = (chunk + b"\0" + _meta(END_OF_TRACK, b"") for chunk in chunks)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(chunk)) + chunk for chunk in ended)


def _meter(numerator: int, denominator: int) -> bytes:
    if numerator > 255 or denominator & (denominator - 1):
        limits = "a numerator up to 255 and a power of two as denominator"
        raise ValueError(f"a time signature of MIDI has {limits}, and one is {numerator}/{denominator}")
    return _meta(METER, bytes([numerator, denominator.bit_length() - 1, 24, 8]))


def _tempo(qpm: float) -> bytes:
    microseconds = round(MICROSECONDS_PER_MINUTE / qpm)
    if not 0 < microseconds < MAX_TEMPO:
        limits = f"{MICROSECONDS_PER_MINUTE / (MAX_TEMPO - 1):.4g} to {MICROSECONDS_PER_MINUTE:,.0f}"
        raise ValueError(f"MIDI holds tempos from {limits} quarters per minute, and one is {qpm:g}")
    return _meta(TEMPO, microseconds.to_bytes(3, "big"))


def _assign_channels(tracks: Sequence[Track]) -> dict[Track, tuple[int, int]]:
    """A (port, channel) for each track. The first track of each program has its own, and so have others while there are any."""
    pitched = [track for track in tracks if track.program != DRUMS]
    firsts = {track.program: track for track in reversed(pitched)}
    others = [track for track in pitched if firsts[track.program] != track]
    free = [channel for channel in range(CHANNELS) if channel != DRUM_CHANNEL]
    size = max(len(firsts), len(free))
    alone = [*sorted(firsts.values()), *others][:size]
    assigned = {track: (place // len(free), free[place % len(free)]) for place, track in enumerate(alone)}
    shared = {program: assigned[track] for program, track in firsts.items()} | {DRUMS: (0, DRUM_CHANNEL)}
    return {track: assigned.get(track, shared[track.program]) for track in tracks}


@functools.lru_cache(1024)
def _track_header(track: Track, port: int, channel: int) -> bytes:
    """The first events of a MIDI track: name, mark, port and program change."""
    events = [_meta(TRACK_NAME, clean(track.name).encode("utf-8")), _meta(TEXT, MARK.format(track.track).encode())]
    events += [_meta(PORT, bytes([port])), bytes([PROGRAM | channel, track.program % DRUMS])]
    return b"".join(b"\0" + event for event in events)


def _track_bodies(notes: np.ndarray, track: np.ndarray, channels: np.ndarray) -> list[bytes]:
    """The note-ons and note-offs of each track, as bytes.

    notes: int64 [N, 5] as in `midi_bytes`. track: int64 [N], the track of each note. channels: int64 [tracks].
    """
    start, end, _, pitch, velocity = notes.T
    key = track * (int(end.max(initial=0)) + 1) * 2
    order = _stable_order(np.concatenate([key + end * 2, key + start * 2 + 1]))  # at one tick note-offs come first
    tick = np.concatenate([end, start])[order]
    bounds = np.cumsum(np.concatenate([[0], 2 * np.bincount(track, minlength=len(channels))]))  # the first event of each track
    delta = tick.copy()
    delta[1:] -= tick[:-1]
    delta[bounds[:-1]] = tick[bounds[:-1]]
    longest = int(delta.max(initial=0))
    if longest >= MAX_DELTA:
        raise ValueError(f"a rest of {longest:,} ticks is too long for a MIDI file")
    # An event ends with four bytes: the end of its delta time, its status, and two data bytes.
    content = channels[track] << 16 | pitch << 8
    content = np.concatenate([content | NOTE_OFF << 16 | OFF_VELOCITY, content | NOTE_ON << 16 | velocity])[order]
    content |= (delta & 0x7F) << 24
    # They follow the rest of the delta time.
    longer = [np.flatnonzero(delta >= 1 << shift) for shift in range(7, longest.bit_length(), 7)]
    sizes = np.full(len(delta), 4)
    for rows in longer:
        sizes[rows] += 1
    byte_offsets = np.concatenate([[0], np.cumsum(sizes)])
    data = np.zeros(byte_offsets[-1], np.uint8)
    is_content = np.ones(len(data), bool)
    for byte, rows in enumerate(longer, 1):
        place = byte_offsets[rows + 1] - 4 - byte
        data[place] = delta[rows] >> 7 * byte & 0x7F | 0x80
        is_content[place] = False
    data[is_content] = content.astype(">u4").view(np.uint8)
    body = data.tobytes()
    return [body[low:high] for low, high in itertools.pairwise(byte_offsets[bounds].tolist())]


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """As np.argsort(keys, kind="stable") for keys >= 0, but quicker where a key and an index fit in 63 bits."""
    bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > 63:
        return np.argsort(keys, kind="stable")
    return np.sort(keys << bits | np.arange(len(keys))) & (1 << bits) - 1


def voices(start: np.ndarray, end: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The lowest free voice of each note, int64 [N]: no earlier note with the same key still sounds in it."""
    voice = np.zeros(len(start), np.int64)
    if not len(start):
        return voice
    order = np.argsort(key * (int(start.max()) + 1) + start, kind="stable")
    # A note that begins after all earlier notes of its key have ended has voice 0. Only overlapping notes need a choice.
    base = key[order] * (int(end.max()) + 1)
    silent = np.maximum.accumulate(base + end[order])
    is_first = np.append(True, base[1:] + start[order[1:]] >= silent[:-1])
    order = order[~(is_first & np.append(is_first[1:], True))]
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
    return bytes([0xFF, kind]) + _variable_length(len(content)) + content


def _variable_length(value: int) -> bytes:
    """A variable-length quantity of up to four bytes. Raises ValueError for a larger value."""
    if value >= MAX_DELTA:
        raise ValueError(f"a rest of {value:,} ticks is too long for a MIDI file")
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))
