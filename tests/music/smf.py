"""Builders of standard MIDI files. An event is (tick, bytes); `track` sorts events and adds delta times."""

import struct
from collections.abc import Iterable

QUARTER = 480
DRUM_CHANNEL = 9

Event = tuple[int, bytes]


def number(value: int) -> bytes:
    digits = [value & 127]
    while value := value >> 7:
        digits.append(128 | value & 127)
    return bytes(reversed(digits))


def on(tick: int, pitch: int = 60, velocity: int = 80, channel: int = 0) -> Event:
    return tick, bytes([0x90 | channel, pitch, velocity])


def off(tick: int, pitch: int = 60, channel: int = 0) -> Event:
    return tick, bytes([0x80 | channel, pitch, 64])


def note(tick: int, length: int, pitch: int = 60, velocity: int = 80, channel: int = 0) -> list[Event]:
    return [on(tick, pitch, velocity, channel), off(tick + length, pitch, channel)]


def program(tick: int, value: int, channel: int = 0) -> Event:
    return tick, bytes([0xC0 | channel, value])


def control(tick: int, kind: int, value: int, channel: int = 0) -> Event:
    return tick, bytes([0xB0 | channel, kind, value])


def meta(tick: int, kind: int, content: bytes = b"") -> Event:
    return tick, bytes([0xFF, kind]) + number(len(content)) + content


def tempo(tick: int, qpm: float) -> Event:
    return meta(tick, 0x51, round(6e7 / qpm).to_bytes(3, "big"))


def meter(tick: int, numerator: int, denominator: int) -> Event:
    return meta(tick, 0x58, bytes([numerator, denominator.bit_length() - 1, 24, 8]))


def sysex(tick: int, content: str, status: int = 0xF0) -> Event:
    """A system-exclusive message. content: hexadecimal, including the final F7."""
    return tick, bytes([status]) + number(len(bytes.fromhex(content))) + bytes.fromhex(content)


def scale(channel: int = 0, count: int = 8, lowest: int = 60) -> list[Event]:
    """Successive quarter notes."""
    return [event for place in range(count) for event in note(place * QUARTER, QUARTER, lowest + place % 5, 80, channel)]


def track(*events: Event | Iterable[Event], end: int | None = None, ended: bool = True) -> bytes:
    """A track chunk with the events sorted by tick; events at one tick keep the given order."""
    rows = sorted((row for each in events for row in ([each] if isinstance(each, tuple) else each)), key=lambda row: row[0])
    data, now = b"", 0
    for tick, content in rows:
        data += number(tick - now) + content
        now = tick
    if ended:
        data += number((now if end is None else end) - now) + b"\xff\x2f\x00"
    return chunk(b"MTrk", data)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">I", len(data)) + data


def smf(*chunks: bytes, ticks: int = QUARTER, kind: int = 1, count: int | None = None) -> bytes:
    tracks = sum(each[:4] == b"MTrk" for each in chunks)
    return chunk(b"MThd", struct.pack(">HHh", kind, tracks if count is None else count, ticks)) + b"".join(chunks)


def riff(data: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data
