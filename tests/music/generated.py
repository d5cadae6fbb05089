"""Random MIDI files with shared channels, overlaps, banks, drum parts, ports and irregular events."""

import random

from tests.music import smf

GS_DRUM_PART = "41 10 42 12 40 {:02x} 15 {:02x} 00 f7"


def draw(seed: int) -> bytes:
    """A valid file: one to four tracks of up to thirty events, mostly notes of few pitches and channels."""
    rng = random.Random(seed)
    kind = rng.choice([0, 1, 1, 1, 2])
    ticks = rng.choice([12, 24, 96, 480, 1000, 10_080, 32_767])
    tracks = [_track(rng, ticks) for _ in range(1 if kind == 0 else rng.randrange(1, 5))]
    if rng.random() < 0.1:
        tracks.insert(rng.randrange(len(tracks)), smf.chunk(b"XFIH", b"\0\1\2"))
    return smf.smf(*tracks, ticks=ticks, kind=kind)


def _track(rng: random.Random, ticks: int) -> bytes:
    data, status_before = b"", None
    if rng.random() < 0.2:
        data += b"\0" + smf.meta(0, 0x21, bytes([rng.randrange(2)]))[1]
    deltas = rng.choices([0, 1, ticks // 4, ticks, 200 * ticks], [0.5, 0.15, 0.2, 0.14, 0.01], k=rng.randrange(31))
    for delta in deltas:
        event = _event(rng)
        running = event[0] < 0xF0 and event[0] == status_before and rng.random() < 0.7
        status_before = event[0] if event[0] < 0xF0 else None
        data += smf.number(delta) + event[running:]
    if rng.random() < 0.9:
        (rest,) = rng.choices([0, ticks, min(10_000 * ticks, 2**28 - 1)], [0.5, 0.45, 0.05])
        data += smf.number(rest) + b"\xff\x2f\x00"
    return smf.chunk(b"MTrk", data)


def _event(rng: random.Random) -> bytes:
    channel = rng.choice([0, 1, 9])
    pitch = rng.randrange(60, 63)
    kind = rng.random()
    if kind < 0.4:
        return smf.on(0, pitch, rng.randrange(1, 128), channel)[1]
    if kind < 0.55:
        return smf.off(0, pitch, channel)[1]
    if kind < 0.7:
        return smf.on(0, pitch, 0, channel)[1]
    if kind < 0.8:
        return smf.program(0, rng.randrange(128), channel)[1]
    if kind < 0.84:
        return smf.control(0, rng.choice([0, 7, 32, 64]), rng.choice([0, 120, 121, 126, 127]), channel)[1]
    if kind < 0.86:
        return bytes([rng.choice([0xA0, 0xE0]) | channel, 1, 2])
    if kind < 0.88:
        return bytes([0xD0 | channel, 3])
    if kind < 0.91:
        return smf.meta(0, 0x51, rng.randbytes(rng.choice([0, 2, 3, 3, 3, 3, 4])))[1]
    if kind < 0.94:
        content = bytes([rng.randrange(20), rng.choice([0, 1, 2, 3, 4, 6, 7, 200]), 24, 8])
        return smf.meta(0, 0x58, content[: rng.choice([0, 2, 4, 4, 4, 4])])[1]
    if kind < 0.96:
        return smf.meta(0, rng.choice([0x01, 0x05, 0x59, 0x7F]), rng.randbytes(rng.randrange(4)))[1]
    if kind < 0.98:
        gs_part = GS_DRUM_PART.format(0x10 | rng.choice([0, 1, 2]), rng.randrange(3))
        xg_part = f"43 10 4c 08 {channel:02x} 07 {rng.randrange(3):02x} f7"
        return smf.sysex(0, rng.choice([gs_part, xg_part, "7e 7f 09 01 f7"]))[1]
    return smf.sysex(0, "43 12 00", 0xF0)[1] + b"\0" + smf.sysex(0, "07 f7", 0xF7)[1]
