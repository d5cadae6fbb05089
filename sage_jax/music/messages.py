"""The bytes of a standard MIDI file as messages: what stands where, before anybody decides what it means.

Runs of channel messages, nearly all of a file, are matched by one regular expression and decoded as arrays. The rest is read event
by event. What a file has that the standard forbids, and that can be passed over without a guess, is passed over and counted.
"""

import collections
import dataclasses
import re
import struct

import numpy as np

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x80, 0x90, 0xB0, 0xC0
SYSEX, ESCAPE, META = 0xF0, 0xF7, 0xFF
TEXT, PORT, END_OF_TRACK, TEMPO, METER, KEY = 0x01, 0x21, 0x2F, 0x51, 0x58, 0x59
LENGTHS = {PORT: 1, END_OF_TRACK: 0, TEMPO: 3, METER: 4, KEY: 2}  # of meta events, in bytes

# A delta time, at most four bytes, then a channel message of two data bytes, with or without its status byte.
_DELTA = rb"[\x80-\xff]{0,3}+[\x00-\x7f]"
_RUN = re.compile(rb"(?:" + _DELTA + rb"[\x80-\xbf\xe0-\xef]?+[\x00-\x7f]{2})++")
_NEW_RUN = re.compile(_DELTA + rb"[\x80-\xbf\xe0-\xef][\x00-\x7f]{2}(?:" + _RUN.pattern + rb")?+")
_STATUSES = re.compile(_DELTA + rb"([\x80-\xff]?+)[\x00-\x7f]{2}")  # of the events of a stream
_DATA_NEXT = re.compile(_DELTA + rb"[\x00-\x7f]")
_SYSTEM_LENGTHS = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # of system messages that no file should hold; the others have no data


class MidiError(ValueError):
    """Bytes that can't be read as MIDI; `reason` is a short slug to count by."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Messages:
    """Every message of a file in the order of its bytes, tracks one after another.

    tick, track, status, data1, data2: int64 [M]. A status is that of a channel message with its channel, SYSEX or META; the latter
    two are rows of `payloads` in the same order: (SYSEX, bytes) or (the meta event's type, bytes). Ticks count from 0 on each track.
    ends: int64 [tracks], the tick at which each one ends. oddities: how often the file has something of each kind.
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
    """The messages of a file. Raises MidiError."""
    oddities = collections.Counter()
    data = _unwrapped(data, oddities)
    if data[:4] != b"MThd" or len(data) < 14:
        raise MidiError("broken", "it does not begin with a MIDI header")
    length, kind, count, division = struct.unpack(">IHHh", data[4:14])
    if division < 1:
        raise MidiError("no_ticks", "its times are SMPTE frames" if division else "a quarter has 0 ticks")
    if length < 6 or kind > 2:
        raise MidiError("broken", f"its header has {length} bytes and is of format {kind}; there are formats 0, 1 and 2, of 6 bytes")
    stream, payloads, lengths = [], [], []
    for chunk in _tracks(data, 8 + length, count, oddities):
        events = _Track(chunk, payloads, oddities).events()
        lengths.append(len(events))
        stream += events
    delta, status, data1, data2, rows = _decoded(b"".join(stream), [len(events) for events in stream])
    if not lengths:
        raise MidiError("broken", "it has no tracks")
    # A track's rows are the rows of its pieces of the stream.
    pieces = np.cumsum(np.concatenate([[0], rows]))
    borders = pieces[np.cumsum([0, *lengths])]
    track = np.repeat(np.arange(len(lengths)), np.diff(borders))
    total = np.cumsum(delta)
    before = np.concatenate([[0], total])[borders]
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


def _unwrapped(data: bytes, oddities: collections.Counter) -> bytes:
    """The MIDI file within a RIFF file of the form RMID; any other file as it is."""
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


def _tracks(data: bytes, place: int, count: int, oddities: collections.Counter) -> list[bytes]:
    """The bytes of each track. Raises MidiError where one is missing or cut short."""
    tracks = []
    while place + 8 <= len(data):
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "big")
        if name != b"MTrk" and not (name.isascii() and name.decode("ascii").isprintable()):
            break  # no chunk begins like this: what follows the file does not belong to it
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


class _Track:
    """One track, read from its first byte to its last."""

    def __init__(self, data: bytes, payloads: list[tuple[int, bytes]], oddities: collections.Counter):
        self._data, self._payloads, self._oddities = data, payloads, oddities
        self._place = 0
        self._running = False  # whether a running status of two data bytes is in force
        self._events: list[bytes] = []
        self._stated = (0, 0)  # a number of events, and the running status after them
        self._packets: list[bytes] = []  # of a system-exclusive message that has not ended

    def events(self) -> list[bytes]:
        """Pieces of a stream in which every event is a delta time, mostly a status, and two data bytes.

        A row of `payloads` has the status SYSEX or META there. Raises MidiError.
        """
        if not self._data:
            self._oddities["empty_tracks"] += 1
        while self._place < len(self._data):
            # After a program change a data byte without a status is another program: no run.
            run = (_RUN if self._running else _NEW_RUN).match(self._data, self._place)
            if run:
                self._events.append(run.group())
                self._place, self._running = run.end(), True
                if self._place == len(self._data):
                    break
            if self._event():
                self._oddities["bytes_after_an_end_of_track"] += len(self._data) - self._place
                return self._events
        self._oddities["tracks_without_an_end"] += 1
        return self._events

    def _event(self) -> bool:
        """Reads one event of any kind; whether it is the end of the track."""
        data, begin = self._data, self._place
        self._number()
        delta = data[begin : self._place]
        if self._place == len(data):
            raise MidiError("broken", "a track ends within an event")
        status = data[self._place]
        if status < 0x80:
            return self._channel(delta, self._status())
        self._place += 1
        if status < 0xF0:
            return self._channel(delta, status)
        if status == META:
            return self._meta(delta)
        if status in (SYSEX, ESCAPE):
            return self._system_exclusive(delta, status)
        self._oddities["system_messages"] += 1
        self._take(_SYSTEM_LENGTHS.get(status, 0))
        self._append(delta, META, b"", TEXT)  # its time counts
        return False

    def _channel(self, delta: bytes, status: int) -> bool:
        if not status:
            raise MidiError("broken", "a track has data without a status")
        data = self._take(1 if status & 0xE0 == PROGRAM else 2)
        if max(data) > 0x7F:
            kind = status & 0xF0
            if kind in (NOTE_OFF, NOTE_ON, PROGRAM) or (kind == CONTROL and data[0] == 0):
                raise MidiError("broken", f"a note, program or bank has the value {max(data)}, beyond 127")
            self._oddities["data_bytes_over_127"] += 1
            data = bytes(min(value, 0x7F) for value in data)
        self._running = status & 0xE0 != PROGRAM
        self._events.append(delta + bytes([status]) + data.ljust(2, b"\0"))
        return False

    def _meta(self, delta: bytes) -> bool:
        kind = self._take(1)[0]
        content = self._take(self._number())
        odd = len(content) != LENGTHS.get(kind, len(content))
        if odd or kind == KEY and not (-7 <= int.from_bytes(content[:1], signed=True) <= 7 and content[1] in (0, 1)):
            self._oddities["odd_meta_events"] += 1
        if kind != END_OF_TRACK:
            self._followed()
        self._append(delta, META, content, kind)
        return kind == END_OF_TRACK

    def _system_exclusive(self, delta: bytes, status: int) -> bool:
        content = self._take(self._number())
        if status == SYSEX:
            self._packets = [content]
        else:
            self._oddities["system_exclusive_packets"] += 1
            self._packets += [content] if self._packets else []
        self._followed()
        whole = b""
        if self._packets and content.endswith(b"\xf7"):
            whole, self._packets = b"".join(self._packets), []
        self._append(delta, SYSEX, whole)
        return False

    def _followed(self) -> None:
        """Counts a running status that goes on after a meta event or a system-exclusive message, as players let it."""
        following = _DATA_NEXT.match(self._data, self._place)
        if following and self._status():
            self._oddities["running_status_kept"] += 1

    def _append(self, delta: bytes, status: int, content: bytes, kind: int = SYSEX) -> None:
        self._events.append(delta + bytes([status, 0, 0]))
        self._payloads.append((kind, content))

    def _status(self) -> int:
        """The running status, 0 for none."""
        known, status = self._stated
        for events in reversed(self._events[known:]):
            stated = [each[0] for each in _STATUSES.findall(events) if each and each[0] < SYSEX]
            if stated:
                status = stated[-1]
                break
        self._stated = (len(self._events), status)
        return status

    def _number(self) -> int:
        """A number of up to four bytes of seven bits each."""
        value = 0
        for _ in range(4):
            byte = self._take(1)[0]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise MidiError("broken", "a track has a number of more than four bytes")

    def _take(self, length: int) -> bytes:
        taken = self._data[self._place : self._place + length]
        if len(taken) < length:
            raise MidiError("broken", "a track ends within an event")
        self._place += length
        return taken


def _decoded(stream: bytes, lengths: list[int]) -> tuple[np.ndarray, ...]:
    """delta, status, data1, data2, int64 [M], of a stream of pieces of `lengths` bytes, and how many rows each piece has.

    Three bytes of an event are below 128: the last one of its delta time and its data. What stands before the first of them is the
    rest of the delta time, what stands before the second is the status.
    """
    values = np.frombuffer(stream, np.uint8)
    low = np.flatnonzero(values < 0x80)
    last, first, second = low.reshape(-1, 3).T
    rows = np.diff(np.searchsorted(second, np.cumsum([0, *lengths])))
    begin = np.concatenate([[0], second + 1])[:-1]
    delta = values[last].astype(np.int64)
    for byte in range(1, 1 + int((last - begin).max(initial=0))):
        longer = np.flatnonzero(last - begin >= byte)
        delta[longer] |= (values[last[longer] - byte].astype(np.int64) & 0x7F) << 7 * byte
    stated = first - last == 2
    status = np.where(stated, values[last + stated], 0).astype(np.int64)
    # A running status is the last one of a channel message; META and SYSEX are always stated.
    source = np.maximum.accumulate(np.where(stated & (status < SYSEX), np.arange(len(status)), 0))
    status = np.where(stated, status, status[source])
    return delta, status, values[first].astype(np.int64), values[second].astype(np.int64), rows
