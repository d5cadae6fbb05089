"""The messages of a standard MIDI file in the order of its bytes. reading.py interprets them.

One regular expression matches runs of channel messages, which are nearly all of a file, and numpy decodes these runs. The other
events are parsed one by one. Violations of the standard are skipped and counted if that needs no guess.
"""

import collections
import dataclasses
import re
import struct

import numpy as np

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x80, 0x90, 0xB0, 0xC0
SYSEX, ESCAPE, META = 0xF0, 0xF7, 0xFF
TEXT, TRACK_NAME, PORT, END_OF_TRACK, TEMPO, METER, KEY = 0x01, 0x03, 0x21, 0x2F, 0x51, 0x58, 0x59
META_LENGTHS = {PORT: 1, END_OF_TRACK: 0, TEMPO: 3, METER: 4, KEY: 2}  # content of meta events, in bytes

# A delta time of at most four bytes, then a channel message of two data bytes, with or without its status byte.
_DELTA = rb"[\x80-\xff]{0,3}+[\x00-\x7f]"
_DATA = rb"[\x00-\x7f][\x00-\x7f]"  # matched more quickly than with {2}
_RUN = re.compile(rb"(?:" + _DELTA + rb"[\x80-\xbf\xe0-\xef]?+" + _DATA + rb")++")
_NEW_RUN = re.compile(_DELTA + rb"[\x80-\xbf\xe0-\xef]" + _DATA + rb"(?:" + _RUN.pattern + rb")?+")
_STATUSES = re.compile(_DELTA + rb"([\x80-\xff]?+)[\x00-\x7f]{2}")  # captures the status byte of each event in a run
# The usual other events: a meta event's type and length (at most 127 bytes), or a status and its only data byte.
_SHORT = re.compile(rb"(" + _DELTA + rb")(?:\xff([\x00-\xff])([\x00-\x7f])|([\xc0-\xdf][\x00-\x7f]))")
_SYSTEM_LENGTHS = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes of system messages, which files should not contain; others have none


class MidiError(ValueError):
    """Bytes that cannot be read as MIDI. `reason` is a short slug for counting."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Messages:
    """All messages of a file in the order of its bytes, one track after another.

    tick, track: int64 [M]. Ticks count from 0 in each track.
    status, data1, data2: uint8 [M]. A status is a channel message's status byte, including the channel, or SYSEX or META.
    payloads: one entry per SYSEX or META row, in order: (SYSEX, bytes) or (meta event type, bytes).
    ends: int64 [tracks], the last tick of each track.
    oddities: counts of irregularities by kind (quantization_stats.ODDITIES).
    """

    ticks_per_quarter: int
    format: int
    tick: np.ndarray
    track: np.ndarray
    status: np.ndarray
    data1: np.ndarray
    data2: np.ndarray
    payloads: list[tuple[int, bytes]]
    ends: np.ndarray
    oddities: collections.Counter


def scan(data: bytes) -> Messages:
    """Parses the bytes of a MIDI file. Raises MidiError."""
    oddities = collections.Counter()
    data = _strip_riff(data, oddities)
    if data[:4] != b"MThd" or len(data) < 14:
        raise MidiError("broken", "it has no MIDI header")
    length, kind, count, division = struct.unpack(">IHHh", data[4:14])
    if division < 1:
        raise MidiError("no_ticks", "its times are SMPTE frames" if division else "it has 0 ticks per quarter")
    if length < 6 or kind > 2:
        raise MidiError("broken", f"its header has {length} bytes and format {kind}; expected 6 bytes and format 0, 1 or 2")
    stream, payloads, lengths = [], [], []
    for chunk in _track_chunks(data, 8 + length, count, oddities):
        events = _TrackParser(chunk, payloads, oddities).parse()
        lengths.append(len(events))
        stream += events
    delta, status, data1, data2, rows = _decode(b"".join(stream), [len(events) for events in stream])
    if not lengths:
        raise MidiError("broken", "it has no tracks")
    # Each track gave `lengths` parts of the stream; the part `i` of the stream has rows[i] messages.
    part_offsets = np.cumsum(np.concatenate([[0], rows]))
    track_offsets = part_offsets[np.cumsum([0, *lengths])]
    track = np.repeat(np.arange(len(lengths)), np.diff(track_offsets))
    total = np.cumsum(delta)
    before = np.concatenate([[0], total])[track_offsets]
    return Messages(
        ticks_per_quarter=division,
        format=kind,
        tick=total - before[:-1][track],
        track=track,
        status=status,
        data1=data1,
        data2=data2,
        payloads=payloads,
        ends=before[1:] - before[:-1],
        oddities=oddities,
    )


def _strip_riff(data: bytes, oddities: collections.Counter) -> bytes:
    """The MIDI file inside a RIFF file of type RMID; other files unchanged."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    place = 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        if data[place : place + 4] == b"data":
            oddities["riff_files"] += 1
            return data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
    raise MidiError("broken", "it is a RIFF file without MIDI data")


def _track_chunks(data: bytes, place: int, count: int, oddities: collections.Counter) -> list[bytes]:
    """The bytes of each track. Raises MidiError for a missing or truncated track."""
    tracks = []
    while place + 8 <= len(data):
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "big")
        if name != b"MTrk" and not (name.isascii() and name.decode("ascii").isprintable()):
            break  # not a chunk name: the remaining bytes are not part of the MIDI file
        chunk = data[place + 8 : place + 8 + length]
        place += 8 + length
        if name == b"MTrk":
            if len(chunk) < length:
                raise MidiError("broken", f"track {len(tracks) + 1} is cut short")
            tracks.append(chunk)
        else:
            oddities["foreign_chunks"] += 1
    oddities["bytes_after_the_tracks"] += max(len(data) - place, 0)
    if len(tracks) < count:
        raise MidiError("broken", f"track {len(tracks) + 1} of {count} is missing")
    oddities["tracks_beyond_the_header"] += len(tracks) - count
    return tracks


class _TrackParser:
    """Parses one track from its first byte to its last."""

    def __init__(self, data: bytes, payloads: list[tuple[int, bytes]], oddities: collections.Counter):
        self._data, self._payloads, self._oddities = data, payloads, oddities
        self._position = 0
        self._has_running_status = False  # whether a running status with two data bytes is in force
        self._after_system = False  # whether the last event was a meta event or a system-exclusive message
        self._events: list[bytes] = []
        self._status_cache = (0, 0)  # (number of events, running status after them)
        self._packets: list[bytes] = []  # of an unfinished system-exclusive message

    def parse(self) -> list[bytes]:
        """Byte strings in which every event is a delta time, a status (except running status), and two data bytes.

        An event with the status SYSEX or META stands for the next entry of `payloads`. Raises MidiError.
        """
        if not self._data:
            self._oddities["empty_tracks"] += 1
        while self._position < len(self._data):
            run = _NEW_RUN.match(self._data, self._position)
            # A running status of a program change takes one data byte, so it cannot start a run.
            if not run and self._has_running_status and (run := _RUN.match(self._data, self._position)):
                self._count_kept_running_status()
            if run:
                self._events.append(run.group())
                self._position, self._has_running_status, self._after_system = run.end(), True, False
                if self._position == len(self._data):
                    break
            short = _SHORT.match(self._data, self._position)
            if self._parse_short_event(short) if short else self._parse_event():
                self._oddities["bytes_after_an_end_of_track"] += len(self._data) - self._position
                return self._events
        self._oddities["tracks_without_an_end"] += 1
        return self._events

    def _parse_short_event(self, short: re.Match[bytes]) -> bool:
        """Parses the event that _SHORT matched. Returns whether it ends the track."""
        delta, kind, length, message = short.groups()
        self._position = short.end()
        if not message:
            return self._add_meta(delta, kind[0], self._read(length[0]) if length[0] else b"")
        self._has_running_status = self._after_system = False
        self._events.append(delta + message + b"\0")
        return False

    def _parse_event(self) -> bool:
        """Parses one event of any kind. Returns whether it ends the track."""
        data, begin = self._data, self._position
        self._read_variable_length()
        delta = data[begin : self._position]
        if self._position == len(data):
            raise MidiError("broken", "a track ends within an event")
        status = data[self._position]
        if status < 0x80:
            self._count_kept_running_status()
            return self._parse_channel_message(delta, self._running_status())
        self._position += 1
        if status < 0xF0:
            return self._parse_channel_message(delta, status)
        if status == META:
            kind = self._read(1)[0]
            return self._add_meta(delta, kind, self._read(self._read_variable_length()))
        if status in (SYSEX, ESCAPE):
            return self._parse_sysex(delta, status)
        self._oddities["system_messages"] += 1
        self._read(_SYSTEM_LENGTHS.get(status, 0))
        self._append(delta, b"\xff\0\0", TEXT, b"")  # an empty text event keeps the delta time
        self._after_system = False
        return False

    def _parse_channel_message(self, delta: bytes, status: int) -> bool:
        if not status:
            raise MidiError("broken", "a track has data without a status")
        data = self._read(1 if status & 0xE0 == PROGRAM else 2)
        if max(data) > 0x7F:
            kind = status & 0xF0
            if kind in (NOTE_OFF, NOTE_ON, PROGRAM) or (kind == CONTROL and data[0] == 0):
                raise MidiError("broken", f"a note, program or bank has the value {max(data)}, above 127")
            self._oddities["data_bytes_over_127"] += 1
            data = bytes(min(value, 0x7F) for value in data)
        self._has_running_status, self._after_system = status & 0xE0 != PROGRAM, False
        self._events.append(delta + bytes([status]) + data.ljust(2, b"\0"))
        return False

    def _add_meta(self, delta: bytes, kind: int, content: bytes) -> bool:
        if kind in META_LENGTHS:
            odd = len(content) != META_LENGTHS[kind]
            if odd or (kind == KEY and not (-7 <= int.from_bytes(content[:1], signed=True) <= 7 and content[1] in (0, 1))):
                self._oddities["odd_meta_events"] += 1
        self._append(delta, b"\xff\0\0", kind, content)
        return kind == END_OF_TRACK

    def _parse_sysex(self, delta: bytes, status: int) -> bool:
        content = self._read(self._read_variable_length())
        if status == SYSEX:
            self._packets = [content]
        else:
            self._oddities["system_exclusive_packets"] += 1
            self._packets += [content] if self._packets else []
        whole = b""
        if self._packets and content.endswith(b"\xf7"):
            whole, self._packets = b"".join(self._packets), []
        self._append(delta, b"\xf0\0\0", SYSEX, whole)
        return False

    def _count_kept_running_status(self) -> None:
        """Counts a running status that continues after a meta event or a system-exclusive message, as players accept it."""
        self._oddities["running_status_kept"] += self._after_system

    def _append(self, delta: bytes, message: bytes, kind: int, content: bytes) -> None:
        self._after_system = True
        self._events.append(delta + message)
        self._payloads.append((kind, content))

    def _running_status(self) -> int:
        """The running status, or 0."""
        known, status = self._status_cache
        for events in reversed(self._events[known:]):
            stated = [each[0] for each in _STATUSES.findall(events) if each and each[0] < SYSEX]
            if stated:
                status = stated[-1]
                break
        self._status_cache = (len(self._events), status)
        return status

    def _read_variable_length(self) -> int:
        """Reads a variable-length quantity: up to four bytes with seven bits each."""
        value = 0
        for _ in range(4):
            byte = self._read(1)[0]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise MidiError("broken", "a track has a variable-length quantity of more than four bytes")

    def _read(self, length: int) -> bytes:
        taken = self._data[self._position : self._position + length]
        if len(taken) < length:
            raise MidiError("broken", "a track ends within an event")
        self._position += length
        return taken


def _decode(stream: bytes, lengths: list[int]) -> tuple[np.ndarray, ...]:
    """Decodes a stream made of parts with `lengths` bytes.

    Returns delta, int64 [M], status, data1 and data2, uint8 [M], and the number of messages in each part.
    Exactly three bytes of an event are below 128: the last byte of the delta time and the two data bytes. The bytes before the
    first of them are the rest of the delta time. A byte between the first and the second is the status.
    """
    values = np.frombuffer(stream, np.uint8)
    last, first, second = np.ascontiguousarray(np.flatnonzero(values < 0x80).reshape(-1, 3).T)
    rows = np.diff(np.searchsorted(second, np.cumsum([0, *lengths])))
    longer_by = last.copy()  # bytes of the delta time before its last one
    longer_by[1:] -= second[:-1] + 1
    delta = values[last].astype(np.int64)
    for byte in range(1, 1 + int(longer_by.max(initial=0))):
        longer = np.flatnonzero(longer_by >= byte)
        delta[longer] |= (values[last[longer] - byte].astype(np.int64) & 0x7F) << 7 * byte
    status = values[first - 1]
    is_running = first - last == 1
    if is_running.any():
        # A running status repeats the last channel message's status; META and SYSEX always have a status byte.
        source = np.where(is_running | (status >= SYSEX), 0, np.arange(len(status)))
        status = np.where(is_running, status[np.maximum.accumulate(source)], status)
    return delta, status, values[first], values[second], rows
