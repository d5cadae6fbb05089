"""The meta events and system-exclusive messages of a MIDI file: tempos, meters, ports and drum parts."""

import collections
import operator
from collections.abc import Iterator

import numpy as np

from sage_jax.music.messages import METER, PORT, SYSEX, TEMPO, Messages
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM

CHANNELS = 16
DRUM_CHANNEL = 9
DRUM_BANKS = (120, 126, 127)
GS_DRUM_BANKS = (120,)
MAX_DENOMINATOR = 64
MICROSECONDS_PER_MINUTE = 6e7
GS_RESET, XG_RESET = b"\x41\x42\x12\x40\x00\x7f", b"\x43\x4c\x00\x00\x7e\x00"  # manufacturer, model, data
USED_EVENTS = (TEMPO, METER, PORT, SYSEX)


class SystemEvents:
    """The meta events and system-exclusive messages of a file, in order of time.

    first_parts: int64 [tracks], the part of channel 0 of each track. A part is a channel of a port; in a format 2 file each
    pattern has its own parts.
    """

    def __init__(self, messages: Messages, tick: np.ndarray):
        rows = np.flatnonzero(messages.status >= SYSEX)
        rows = zip(tick[rows].tolist(), messages.track[rows].tolist(), messages.payloads, strict=True)
        events = [(at, track, what, content) for at, track, (what, content) in rows if what in USED_EVENTS]
        self._events = sorted(events, key=operator.itemgetter(0))
        self.first_parts = np.zeros(len(messages.ends), np.int64)
        for _, track, what, content in reversed(self._events):
            if what == PORT and content:
                self.first_parts[track] = content[0] * CHANNELS
        if messages.format == 2:
            self.first_parts += 256 * CHANNELS * np.arange(len(self.first_parts))

    def tempos(self, track_starts: np.ndarray, oddities: collections.Counter) -> list[tuple[int, float]]:
        """(tick, quarters per minute), from tick 0 on. Each pattern of a format 2 file starts with the default tempo."""
        rows = []
        for at, content in self._contents_of(TEMPO):
            if len(content) >= 3 and (microseconds := int.from_bytes(content[:3], "big")):
                rows.append((at, MICROSECONDS_PER_MINUTE / microseconds))
            else:
                oddities["odd_meta_events"] += len(content) == 3  # other lengths were counted during parsing
        return _add_pattern_defaults(rows, track_starts, (DEFAULT_QPM,))

    def meters(self, track_starts: np.ndarray, oddities: collections.Counter) -> list[tuple[int, int, int]]:
        """(tick, numerator, denominator). Each pattern of a format 2 file begins a bar."""
        rows = []
        for at, content in self._contents_of(METER):
            if len(content) >= 2 and content[0] and 2 ** min(content[1], 8) <= MAX_DENOMINATOR:
                rows.append((at, content[0], 2 ** content[1]))
            else:
                oddities["odd_meta_events"] += len(content) == 4
        return _add_pattern_defaults(rows, track_starts[track_starts > 0], DEFAULT_METER)

    def _contents_of(self, wanted: int) -> Iterator[tuple[int, bytes]]:
        """(tick, content) of each meta event of type `wanted`."""
        return ((at, content) for at, _, what, content in self._events if what == wanted)

    @property
    def drum_banks(self) -> tuple[int, ...]:
        """The banks whose programs are drum kits."""
        messages = [content for *_, what, content in self._events if what == SYSEX and len(content) > 3]
        resets = {bytes([content[0], content[2]]) + content[3:7] for content in messages}
        return GS_DRUM_BANKS if GS_RESET in resets and XG_RESET not in resets else DRUM_BANKS

    def drum_parts(self) -> Iterator[tuple[int, int, int]]:
        """(part, tick, mode) of GS and XG drum-part messages and of resets, in order of time.

        mode: 1 for drums, 0 for melodic, -1 for the default.
        """
        for at, track, what, content in self._events:
            if what != SYSEX or len(content) < 4:
                continue
            first = int(self.first_parts[track])
            model, data = bytes([content[0], content[2]]), content[3:-1]
            if model == b"\x41\x42" and data[:2] == b"\x12\x40" and len(data) >= 5 and data[2] >> 4 == 1 and data[3] == 0x15:
                block = data[2] & 0xF  # GS block 0 is channel 10; the other blocks are the other channels in order
                channel = DRUM_CHANNEL if block == 0 else block - (block <= DRUM_CHANNEL)
                yield first + channel, at, int(data[4] > 0)
            elif model == b"\x43\x4c" and data[:1] == b"\x08" and len(data) == 4 and data[2] == 0x07 and data[1] < CHANNELS:
                yield first + data[1], at, int(data[3] > 0)
            elif model + data[:4] in (GS_RESET, XG_RESET) or (content[0] == 0x7E and content[2] == 0x09):
                yield from ((first + channel, at, -1) for channel in range(CHANNELS))


def _add_pattern_defaults(rows: list[tuple], starts: np.ndarray, default: tuple) -> list[tuple]:
    """`rows` in order of time, with the default at each of `starts` (ticks) that has no row."""
    stated = {row[0] for row in rows}
    return sorted([(at, *default) for at in sorted({*starts.tolist()} - stated)] + rows, key=lambda row: row[0])
