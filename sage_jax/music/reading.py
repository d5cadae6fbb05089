"""Interprets the messages of a MIDI file.

- Tracks of a format 1 file play together: tempo, meter, program, bank and drum parts apply from any track. A program change in
  the note's own track has priority. A note keeps its initial program. Patterns of a format 2 file follow each other.
- A note-off ends the earliest sounding note with its pitch, channel and track. Without one a note lasts to the track's end.
- Drums are channel 10, drum kits selected by bank, and parts that a GS or XG system-exclusive message makes drums.
  Drum banks are 120 (General MIDI 2), 126 and 127 (XG; melodic in a GS file). A bank applies from the next program change on.
- Impossible meta events (a tempo of 0, a meter without beats, too few bytes) are skipped and counted.
"""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from sage_jax.music.messages import (
    CONTROL,
    METER,
    NOTE_OFF,
    NOTE_ON,
    PORT,
    PROGRAM,
    SYSEX,
    TEMPO,
    Messages,
    MidiError,
    scan,
)  # fmt: skip
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS

MAX_QUARTERS = 200_000  # latest onset and longest duration of a note: a day of music at 120 quarters per minute
MAX_DENOMINATOR = 64
CHANNELS = 16
DRUM_CHANNEL = 9
DRUM_BANKS = (120, 126, 127)
GS_DRUM_BANKS = (120,)
BANK_SELECT = (0, 32)  # controller numbers: most and least significant byte of the bank
MICROSECONDS_PER_MINUTE = 6e7
GS_RESET, XG_RESET = b"\x41\x42\x12\x40\x00\x7f", b"\x43\x4c\x00\x00\x7e\x00"  # manufacturer, model, data


@dataclasses.dataclass(frozen=True)
class ParsedMidi:
    """The notes, tempos and meters of a MIDI file, in its own ticks.

    start, end: float64 [N], ticks of the notes, in any order. pitch, velocity, program: int64 [N]; program DRUMS for drums.
    tempo_ticks, qpm: float64 [C], the tempo map from tick 0 on.
    meters: (tick, numerator, denominator) in order of time. DEFAULT_METER holds before the first one.
    tracks: number of (track, channel, program) combinations that have notes.
    controls: number of control changes (including pedal, without bank selects), pressures and pitch bends.
    oddities: counts of what was changed or skipped, by the names of QuantizationStats' counters.
    """

    ticks_per_quarter: int
    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray
    tempo_ticks: np.ndarray
    qpm: np.ndarray
    meters: list[tuple[float, int, int]]
    tracks: int
    controls: int
    oddities: collections.Counter


def read_bytes(data: bytes) -> ParsedMidi:
    """Parses and interprets the bytes of a MIDI file. Raises MidiError."""
    return interpret(scan(data))


def interpret(messages: Messages) -> ParsedMidi:
    """Interprets messages. Raises MidiError for a note that begins after MAX_QUARTERS."""
    oddities = collections.Counter(messages.oddities)
    track_starts = np.zeros_like(messages.ends)
    if messages.format == 2:
        track_starts = np.cumsum(messages.ends) - messages.ends
        oddities["patterns_in_a_row"] += len(track_starts)
    tick, ends = messages.tick + track_starts[messages.track], messages.ends + track_starts
    kind = np.where(messages.status < SYSEX, messages.status & 0xF0, messages.status)
    system = _SystemEvents(messages, tick, kind)
    line = messages.track * CHANNELS + (messages.status & 0xF)  # (track, channel) as one number
    is_off = (kind == NOTE_OFF) | (kind == NOTE_ON) & (messages.data2 == 0)
    on_row, off_row = _match_note_offs(line * 128 + messages.data1, np.flatnonzero(is_off | (kind == NOTE_ON)), is_off)
    pitch = messages.data1[on_row]
    start = tick[on_row]
    end = np.where(off_row < 0, ends[messages.track[on_row]], tick[off_row])
    limit = MAX_QUARTERS * messages.ticks_per_quarter
    if start.max(initial=0) > limit:
        late = start.max() / messages.ticks_per_quarter
        raise MidiError("too_long", f"a note begins at quarter {late:,.0f}, after the limit of {MAX_QUARTERS:,}")
    # Notes are sorted by line and pitch, then by the order in which they begin and end.
    same_key = np.diff(line[on_row] * 128 + pitch) == 0
    oddities["notes_overlapping"] += int((same_key & (start[1:] < end[:-1])).sum())
    oddities["notes_without_end"] += int((off_row < 0).sum())
    oddities["notes_without_length"] += int((end <= start).sum())
    end = np.clip(end, start + 1, start + limit)
    program = _programs(messages, np.minimum(tick, limit + 1), kind, line, system, on_row)
    last = int(end.max(initial=1))
    tempos = _clean_changes(system.tempos(track_starts, oddities), "tempos", last, oddities)
    meters = _clean_changes(system.meters(track_starts, oddities), "meters", last, oddities)
    is_bank = (kind == CONTROL) & ((messages.data1 == BANK_SELECT[0]) | (messages.data1 == BANK_SELECT[1]))
    return ParsedMidi(
        ticks_per_quarter=messages.ticks_per_quarter,
        start=start.astype(np.float64),
        end=end.astype(np.float64),
        pitch=pitch,
        velocity=messages.data2[on_row],
        program=program,
        tempo_ticks=np.array([at for at, _ in tempos], np.float64),
        qpm=np.array([qpm for _, qpm in tempos], np.float64),
        meters=meters,
        tracks=len(np.unique(line[on_row] * (DRUMS + 1) + program)),
        controls=int(((kind > NOTE_ON) & (kind < SYSEX) & (kind != PROGRAM) & ~is_bank).sum()),
        oddities=+oddities,
    )


def _add_pattern_defaults(rows: list[tuple], starts: np.ndarray, default: tuple) -> list[tuple]:
    """`rows` in order of time, with the default at each of `starts` (ticks) that has no row."""
    stated = {row[0] for row in rows}
    return sorted([(at, *default) for at in sorted({*starts.tolist()} - stated)] + rows, key=lambda row: row[0])


def _clean_changes(rows: list[tuple], name: str, end: int, oddities: collections.Counter) -> list[tuple]:
    """The rows before `end`, the tick at which the last note ends; of several rows at one tick the last.

    rows: in order of time. name: 'tempos' or 'meters'. Counts the later rows, and the superseded and repeated rows as merged.
    """
    oddities["changes_after_the_end"] += sum(row[0] >= end for row in rows)
    rows = [row for row in rows if row[0] < end]
    kept = list({row[0]: row for row in rows}.values())
    if name == "tempos":  # a repeated meter is kept, since it begins a bar
        kept = [row for row, before in zip(kept, [(), *kept], strict=False) if row[1:] != before[1:]]
    oddities.update({name: len(rows) - len(kept), f"{name}_merged": len(rows) - len(kept)})
    return kept


def _match_note_offs(key: np.ndarray, rows: np.ndarray, is_off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matches note-ons and note-offs of each key first in, first out.

    key: int64 [M], of each message. rows: rows of all note-ons and note-offs. is_off: bool [M], True for note-offs.
    Returns the rows of the note-ons, sorted by key, and the row of the note-off that ends each, -1 without one.
    """
    key, rows = np.divmod(np.sort(key[rows] * len(key) + rows), max(len(key), 1))
    off = is_off[rows]
    # Running count of note-ons minus note-offs; each key starts far below the end of the previous key. A note-off that takes
    # the count to a new minimum has no note to end.
    step = np.where(off, -1, 1)
    first = np.diff(key, prepend=-1) != 0
    sounding = np.cumsum(step - first * 2 * (len(rows) + 1))
    floor = (sounding - step)[first][np.cumsum(first) - 1]
    lowest = np.minimum(np.concatenate([[0], np.minimum.accumulate(sounding)])[:-1], floor)
    ends = off & (sounding >= lowest)
    # The n-th matching note-off of a key ends its n-th note.
    key_on, key_off = key[~off], key[ends]
    place = np.searchsorted(key_off, key_on) + np.arange(len(key_on)) - np.searchsorted(key_on, key_on)
    ended = np.full(len(key_on), -1)
    found = place < np.searchsorted(key_off, key_on, "right")
    ended[found] = rows[ends][place[found]]
    return rows[~off], ended


def _programs(
    messages: Messages, tick: np.ndarray, kind: np.ndarray, line: np.ndarray, system: "_SystemEvents", notes: np.ndarray
) -> np.ndarray:
    """The program of each note, int64 [N].

    tick, kind, line: int64 [M], of each message. notes: int64 [N], rows of the note-ons.
    """
    part = system.first_parts[messages.track] + (messages.status & 0xF)
    changes = np.flatnonzero(kind == PROGRAM)
    banks = np.flatnonzero((kind == CONTROL) & (messages.data1 == BANK_SELECT[0]))
    bank = _latest_event(banks, changes, tick, line, part)
    is_kit = np.zeros(len(kind), bool)
    is_kit[changes[bank >= 0]] = np.isin(messages.data2[bank[bank >= 0]], system.drum_banks)
    change = _latest_event(changes, notes, tick, line, part)
    changed = change >= 0
    program, is_drums = np.zeros(len(notes), np.int64), part[notes] % CHANNELS == DRUM_CHANNEL
    program[changed], is_drums[changed] = messages.data1[change[changed]], is_drums[changed] | is_kit[change[changed]]
    stated = list(system.drum_parts())
    if not stated:
        return np.where(is_drums, DRUMS, program)
    stated_part, at, drums = np.array([(-1, 0, -1), *stated], np.int64).T
    scale = int(tick.max(initial=0)) + 1
    key = stated_part * scale + np.minimum(at, scale - 1)
    order = np.argsort(key, kind="stable")
    # The last drum-part message for each note's part: 1 for drums, 0 for melodic, -1 for the default.
    last = order[np.searchsorted(key[order], part[notes] * scale + tick[notes], "right") - 1]
    override = np.where(stated_part[last] == part[notes], drums[last], -1)
    return np.where(np.where(override < 0, is_drums, override), DRUMS, program)


def _latest_event(events: np.ndarray, queries: np.ndarray, tick: np.ndarray, line: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The row of the event in force at each of the rows `queries`, or -1.

    events, queries: rows. tick, line, part: int64 [M], of each message.
    The event in force is the last earlier one on the query's line. Without one, it is the last event of the query's part whose
    tick is not later.
    """
    if not len(events):
        return np.full(len(queries), -1)
    found = np.full(len(queries), -1)
    scale = int(tick.max()) + 1
    for key, wanted, owner in (
        (part[events] * scale + tick[events], part[queries] * scale + tick[queries], part),
        (line[events] * len(tick) + events, line[queries] * len(tick) + queries, line),
    ):
        order = np.argsort(key, kind="stable")
        index = np.searchsorted(key[order], wanted, "right") - 1
        candidate = events[order[index]]
        found = np.where((index >= 0) & (owner[candidate] == owner[queries]), candidate, found)
    return found


class _SystemEvents:
    """The meta events and system-exclusive messages of a file, in order of time.

    first_parts: int64 [tracks], the part of channel 0 of each track. A part is a channel of a port; in a format 2 file each
    pattern has its own parts.
    """

    def __init__(self, messages: Messages, tick: np.ndarray, kind: np.ndarray):
        rows = np.flatnonzero(kind >= SYSEX)
        payloads = zip(tick[rows].tolist(), messages.track[rows].tolist(), messages.payloads, strict=True)
        self._events = sorted(((at, track, *payload) for at, track, payload in payloads), key=lambda event: event[0])
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
