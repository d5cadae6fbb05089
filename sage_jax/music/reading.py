"""What the messages of a MIDI file mean, decided in one place.

- Tracks of a format 1 file play together: tempo, meter, program, bank and drum parts count wherever they stand. A program change of a
  note's own track comes first, and a note keeps the program that it begins with. The patterns of a format 2 file follow each other.
- A note-off ends the note of its pitch, channel and track that began first. Without a note-off a note lasts to the track's end.
- Drums are channel 10, kits that a bank selects (General MIDI 2: 120, XG: 126 and 127, which in a file for GS are melodic), and parts
  that a system-exclusive message of GS or XG makes drums. A bank counts from the next program change on.
- Of a meta event what is impossible (a tempo of 0, a meter without beats, one shorter than it must be) is passed over and counted.
"""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from sage_jax.music.messages import (
    CONTROL, METER, NOTE_OFF, NOTE_ON, PORT, PROGRAM, SYSEX, TEMPO, Messages, MidiError, scan,
)  # fmt: skip
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS

MAX_QUARTERS = 200_000  # a day of music at 120 quarters per minute: no piece begins a note later than that, or holds it longer
MAX_DENOMINATOR = 64
CHANNELS = 16
DRUM_CHANNEL = 9
DRUM_BANKS = (120, 126, 127)
GS_DRUM_BANKS = (120,)
BANK_SELECT = (0, 32)  # the two control changes that make a bank
MICROSECONDS = 6e7  # in a minute
GS_RESET, XG_RESET = b"\x41\x42\x12\x40\x00\x7f", b"\x43\x4c\x00\x00\x7e\x00"  # manufacturer and model, then data


@dataclasses.dataclass(frozen=True)
class ParsedMidi:
    """What a MIDI file says in ticks, as far as a piece has a place for it.

    start, end: float64 [N], of the notes, in ticks. pitch, velocity, program: int64 [N], program DRUMS for drums. The order of notes
    is of no meaning. tempo_ticks, qpm: float64 [C], the tempo map from tick 0 on. meters: (tick, numerator, denominator) in order
    of time, none of them at tick 0 for DEFAULT_METER. tracks: combinations of a track, channel and program that have notes.
    controls: control changes, pedal among them, pressures and pitch bends. oddities: what was changed or passed over, by kind.
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
    """What a MIDI file of these bytes says. Raises MidiError."""
    return interpret(scan(data))


def interpret(messages: Messages) -> ParsedMidi:
    """What messages mean. Raises MidiError for a note that begins later than MAX_QUARTERS."""
    oddities = collections.Counter(messages.oddities)
    begins = np.zeros_like(messages.ends)
    if messages.format == 2:
        begins = np.cumsum(messages.ends) - messages.ends
        oddities["patterns_in_a_row"] += len(begins)
    tick, ends = messages.tick + begins[messages.track], messages.ends + begins
    kind = np.where(messages.status < SYSEX, messages.status & 0xF0, messages.status)
    system = _SystemEvents(messages, tick, kind)
    line = messages.track * CHANNELS + (messages.status & 0xF)  # a channel of one track
    is_off = (kind == NOTE_OFF) | (kind == NOTE_ON) & (messages.data2 == 0)
    began, ended = _pair(line * 128 + messages.data1, np.flatnonzero(is_off | (kind == NOTE_ON)), is_off)
    pitch = messages.data1[began]
    start = tick[began]
    end = np.where(ended < 0, ends[messages.track[began]], tick[ended])
    limit = MAX_QUARTERS * messages.ticks_per_quarter
    if start.max(initial=0) > limit:
        late = start.max() / messages.ticks_per_quarter
        raise MidiError("too_long", f"a note begins {late:,.0f} quarters after the beginning, later than {MAX_QUARTERS:,}")
    # Notes of one pitch and line stand together, in the order in which they begin and end.
    again = np.diff(line[began] * 128 + pitch) == 0
    oddities["notes_overlapping"] += int((again & (start[1:] < end[:-1])).sum())
    oddities["notes_without_end"] += int((ended < 0).sum())
    oddities["notes_without_length"] += int((end <= start).sum())
    end = np.clip(end, start + 1, start + limit)
    program = _programs(messages, np.minimum(tick, limit + 1), kind, line, system, began)
    last = int(end.max(initial=1))
    tempos = _changes(system.tempos(begins, oddities), "tempos", last, oddities)
    meters = _changes(system.meters(begins, oddities), "meters", last, oddities)
    is_bank = (kind == CONTROL) & ((messages.data1 == BANK_SELECT[0]) | (messages.data1 == BANK_SELECT[1]))
    return ParsedMidi(
        ticks_per_quarter=messages.ticks_per_quarter,
        start=start.astype(np.float64),
        end=end.astype(np.float64),
        pitch=pitch,
        velocity=messages.data2[began],
        program=program,
        tempo_ticks=np.array([at for at, _ in tempos], np.float64),
        qpm=np.array([qpm for _, qpm in tempos], np.float64),
        meters=meters,
        tracks=len(np.unique(line[began] * (DRUMS + 1) + program)),
        controls=int(((kind > NOTE_ON) & (kind < SYSEX) & (kind != PROGRAM) & ~is_bank).sum()),
        oddities=+oddities,
    )


def _with_patterns(rows: list[tuple], begins: np.ndarray, default: tuple) -> list[tuple]:
    """`rows` in order of time, and the default where a pattern begins without one of its own."""
    stated = {row[0] for row in rows}
    return sorted([(at, *default) for at in sorted({*begins.tolist()} - stated)] + rows, key=lambda row: row[0])


def _changes(rows: list[tuple], name: str, end: int, oddities: collections.Counter) -> list[tuple]:
    """`rows` in order of time before the end of the last note; of several at one tick the last.

    Those that come later are counted, and those that say nothing new are counted as merged.
    """
    oddities["changes_after_the_end"] += sum(row[0] >= end for row in rows)
    rows = [row for row in rows if row[0] < end]
    kept = list({row[0]: row for row in rows}.values())
    if name == "tempos":  # a meter that is stated again begins a bar
        kept = [row for row, before in zip(kept, [(), *kept], strict=False) if row[1:] != before[1:]]
    oddities.update({name: len(rows) - len(kept), f"{name}_merged": len(rows) - len(kept)})
    return kept


def _pair(key: np.ndarray, rows: np.ndarray, is_off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of note-ons, by their key, and the row of the note-off that ends each, -1 where there is none: first in, first out.

    rows: those of all note-ons and note-offs, of which is_off [M] says which; key [M] says whose they are.
    """
    key, rows = np.divmod(np.sort(key[rows] * len(key) + rows), max(len(key), 1))
    off = is_off[rows]
    # The notes that sound, if their number could fall below 0, counted for each key from far below where the last one ended. A
    # note-off that brings it to a new low finds nothing to end.
    step = np.where(off, -1, 1)
    first = np.diff(key, prepend=-1) != 0
    sounding = np.cumsum(step - first * 2 * (len(rows) + 1))
    floor = (sounding - step)[first][np.cumsum(first) - 1]
    lowest = np.minimum(np.concatenate([[0], np.minimum.accumulate(sounding)])[:-1], floor)
    ends = off & (sounding >= lowest)
    # The n-th note of a key is ended by the n-th note-off that ends one.
    key_on, key_off = key[~off], key[ends]
    place = np.searchsorted(key_off, key_on) + np.arange(len(key_on)) - np.searchsorted(key_on, key_on)
    ended = np.full(len(key_on), -1)
    found = place < np.searchsorted(key_off, key_on, "right")
    ended[found] = rows[ends][place[found]]
    return rows[~off], ended


def _programs(
    messages: Messages, tick: np.ndarray, kind: np.ndarray, line: np.ndarray, system: "_SystemEvents", notes: np.ndarray
) -> np.ndarray:
    """The program of each note, int64 [N], from its row."""
    part = system.first_parts[messages.track] + (messages.status & 0xF)
    changes = np.flatnonzero(kind == PROGRAM)
    banks = np.flatnonzero((kind == CONTROL) & (messages.data1 == BANK_SELECT[0]))
    bank = _latest(banks, changes, tick, line, part)
    is_kit = np.zeros(len(kind), bool)
    is_kit[changes[bank >= 0]] = np.isin(messages.data2[bank[bank >= 0]], system.drum_banks)
    change = _latest(changes, notes, tick, line, part)
    given = change >= 0
    program, is_drums = np.zeros(len(notes), np.int64), part[notes] % CHANNELS == DRUM_CHANNEL
    program[given], is_drums[given] = messages.data1[change[given]], is_drums[given] | is_kit[change[given]]
    stated = list(system.drum_parts())
    if not stated:
        return np.where(is_drums, DRUMS, program)
    about, at, drums = np.array([(-1, 0, -1), *stated], np.int64).T
    scale = int(tick.max(initial=0)) + 1
    key = about * scale + np.minimum(at, scale - 1)
    order = np.argsort(key, kind="stable")
    # What the last message about a note's part says: drums or not, -1 for neither.
    last = order[np.searchsorted(key[order], part[notes] * scale + tick[notes], "right") - 1]
    stated = np.where(about[last] == part[notes], drums[last], -1)
    return np.where(np.where(stated < 0, is_drums, stated), DRUMS, program)


def _latest(events: np.ndarray, queries: np.ndarray, tick: np.ndarray, line: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The row of the event that holds at each of the rows `queries`, -1 for none.

    It is the last one before it on its own line or, where there is none, the last one of its part that is not later.
    """
    if not len(events):
        return np.full(len(queries), -1)
    found = np.full(len(queries), -1)
    scale = int(tick.max()) + 1
    for key, wanted, whose in (
        (part[events] * scale + tick[events], part[queries] * scale + tick[queries], part),
        (line[events] * len(tick) + events, line[queries] * len(tick) + queries, line),
    ):
        order = np.argsort(key, kind="stable")
        place = np.searchsorted(key[order], wanted, "right") - 1
        candidate = events[order[place]]
        found = np.where((place >= 0) & (whose[candidate] == whose[queries]), candidate, found)
    return found


class _SystemEvents:
    """The meta events and system-exclusive messages of a file, by the order of time.

    first_parts: int64 [tracks]; the part that channel 0 of a track speaks to: of its port and, in a format 2 file, its pattern.
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

    def tempos(self, begins: np.ndarray, oddities: collections.Counter) -> list[tuple[int, float]]:
        """(tick, quarters per minute), from tick 0 on. A pattern does not inherit the tempo of the one before."""
        rows = []
        for at, content in self._contents(TEMPO):
            if len(content) >= 3 and (microseconds := int.from_bytes(content[:3], "big")):
                rows.append((at, MICROSECONDS / microseconds))
            else:
                oddities["odd_meta_events"] += len(content) == 3  # others were counted for their length
        return _with_patterns(rows, begins, (DEFAULT_QPM,))

    def meters(self, begins: np.ndarray, oddities: collections.Counter) -> list[tuple[int, int, int]]:
        """(tick, numerator, denominator). A pattern begins a bar."""
        rows = []
        for at, content in self._contents(METER):
            if len(content) >= 2 and content[0] and 2 ** min(content[1], 8) <= MAX_DENOMINATOR:
                rows.append((at, content[0], 2 ** content[1]))
            else:
                oddities["odd_meta_events"] += len(content) == 4
        return _with_patterns(rows, begins[begins > 0], DEFAULT_METER)

    def _contents(self, wanted: int) -> Iterator[tuple[int, bytes]]:
        """(tick, content) of each meta event of a type."""
        return ((at, content) for at, _, what, content in self._events if what == wanted)

    @property
    def drum_banks(self) -> tuple[int, ...]:
        """The banks whose programs are kits."""
        resets = {bytes([content[0], content[2]]) + content[3:7] for *_, what, content in self._events if what == SYSEX and len(content) > 3}
        return GS_DRUM_BANKS if GS_RESET in resets and XG_RESET not in resets else DRUM_BANKS

    def drum_parts(self) -> Iterator[tuple[int, int, int]]:
        """(part, tick, 1 for drums, 0 for none, -1 for what is usual), in order of time, of GS and XG and of resets."""
        for at, track, what, content in self._events:
            if what != SYSEX or len(content) < 4:
                continue
            first = self.first_parts[track]
            model, data = bytes([content[0], content[2]]), content[3:-1]
            if model == b"\x41\x42" and data[:2] == b"\x12\x40" and len(data) >= 5 and data[2] >> 4 == 1 and data[3] == 0x15:
                block = data[2] & 0xF  # of GS: 0 is channel 10, and the rest follow in order
                channel = DRUM_CHANNEL if block == 0 else block - (block <= DRUM_CHANNEL)
                yield first + channel, at, int(data[4] > 0)
            elif model == b"\x43\x4c" and data[:1] == b"\x08" and len(data) == 4 and data[2] == 0x07 and data[1] < CHANNELS:
                yield first + data[1], at, int(data[3] > 0)
            elif model + data[:4] in (GS_RESET, XG_RESET) or content[0] == 0x7E and content[2] == 0x09:
                yield from ((first + channel, at, -1) for channel in range(CHANNELS))
