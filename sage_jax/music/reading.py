"""Interprets the messages of a MIDI file.

- Tracks of a format 1 file play together: tempo, meter, program, bank and drum parts apply from any track. A program change in
  the note's own track has priority. A note keeps its initial program. Patterns of a format 2 file follow each other.
- A note-off ends the earliest sounding note with its pitch, channel and track. Without one a note lasts to the track's end.
- A track is a (MIDI track, channel, program) that has notes, see file_tracks.py.
- Drums are channel 10, drum kits selected by bank, and parts that a GS or XG system-exclusive message makes drums.
  Drum banks are 120 (General MIDI 2), 126 and 127 (XG; melodic in a GS file). A bank applies from the next program change on.
- Impossible meta events (a tempo of 0, a meter without beats, too few bytes) are skipped and counted.
"""

import collections
import dataclasses

import numpy as np

from sage_jax.music.file_tracks import file_tracks
from sage_jax.music.messages import CONTROL, NOTE_OFF, NOTE_ON, PROGRAM, SYSEX, Messages, MidiError, scan
from sage_jax.music.note_programs import BANK_SELECT, NotePrograms, lines
from sage_jax.music.system_events import SystemEvents
from sage_jax.music.tracks import Track

MAX_QUARTERS = 200_000  # latest onset and longest duration of a note: a day of music at 120 quarters per minute


@dataclasses.dataclass(frozen=True)
class ParsedMidi:
    """The notes, tempos and meters of a MIDI file, in its own ticks.

    start, end: float64 [N], ticks of the notes, in any order. pitch, velocity: int64 [N].
    track: int64 [N], indices in `tracks`. tracks: those that have notes, in the order of the file; program DRUMS for drums.
    tempo_ticks, qpm: float64 [C], the tempo map from tick 0 on.
    meters: (tick, numerator, denominator) in order of time. DEFAULT_METER holds before the first one.
    controls: number of control changes (including pedal, without bank selects), pressures and pitch bends.
    oddities: counts of what was changed or skipped, by the names of QuantizationStats' counters.
    """

    ticks_per_quarter: int
    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    track: np.ndarray
    tracks: tuple[Track, ...]
    tempo_ticks: np.ndarray
    qpm: np.ndarray
    meters: list[tuple[float, int, int]]
    controls: int
    oddities: collections.Counter

    @property
    def program(self) -> np.ndarray:
        """The program of each note, int64 [N]."""
        return np.array([track.program for track in self.tracks], np.int64)[self.track]


def read_bytes(data: bytes) -> ParsedMidi:
    """Parses and interprets the bytes of a MIDI file. Raises MidiError."""
    return interpret(scan(data))


def interpret(messages: Messages) -> ParsedMidi:
    """Interprets messages. Raises MidiError for a note that begins after MAX_QUARTERS."""
    oddities = collections.Counter(messages.oddities)
    tick, ends, track_starts = messages.tick, messages.ends, np.zeros_like(messages.ends)
    if messages.format == 2:
        track_starts = np.cumsum(ends) - ends
        oddities["patterns_in_a_row"] += len(track_starts)
        tick, ends = tick + track_starts[messages.track], ends + track_starts
    kind = np.where(messages.status < SYSEX, messages.status & np.uint8(0xF0), messages.status)
    system = SystemEvents(messages, tick)
    is_on = kind == NOTE_ON
    is_off = (kind == NOTE_OFF) | is_on & (messages.data2 == 0)
    rows = np.flatnonzero(is_off | is_on)
    on_row, off_row, key = _match_note_offs(lines(messages, rows) * 128 + messages.data1[rows], rows, is_off)
    start, end = tick[on_row], tick[off_row]
    endless = np.flatnonzero(off_row < 0)
    end[endless] = ends[messages.track[on_row[endless]]]
    limit = MAX_QUARTERS * messages.ticks_per_quarter
    if start.max(initial=0) > limit:
        late = start.max() / messages.ticks_per_quarter
        raise MidiError("too_long", f"a note begins at quarter {late:,.0f}, after the limit of {MAX_QUARTERS:,}")
    # Notes are sorted by line and pitch, then by the order in which they begin and end.
    overlaps = (start[1:] < end[:-1]) & (key[1:] == key[:-1])
    oddities["notes_overlapping"] += int(np.count_nonzero(overlaps))
    oddities["notes_without_end"] += len(endless)
    oddities["notes_without_length"] += int(np.count_nonzero(end <= start))
    end = np.minimum(np.maximum(end, start + 1), start + limit)
    note_line = key >> 7
    program = NotePrograms(messages, system, tick, limit).of_notes(on_row, note_line)
    track, tracks = file_tracks(messages, note_line, program)
    last = int(end.max(initial=1))
    tempos = _clean_changes(system.tempos(track_starts, oddities), "tempos", last, oddities)
    meters = _clean_changes(system.meters(track_starts, oddities), "meters", last, oddities)
    is_control = (kind > NOTE_ON) & (kind < SYSEX) & (kind != PROGRAM)
    is_bank = (kind == CONTROL) & ((messages.data1 == BANK_SELECT[0]) | (messages.data1 == BANK_SELECT[1]))
    return ParsedMidi(
        ticks_per_quarter=messages.ticks_per_quarter,
        start=start.astype(np.float64),
        end=end.astype(np.float64),
        pitch=key & 127,
        velocity=messages.data2[on_row].astype(np.int64),
        track=track,
        tracks=tracks,
        tempo_ticks=np.array([at for at, _ in tempos], np.float64),
        qpm=np.array([qpm for _, qpm in tempos], np.float64),
        meters=meters,
        controls=int(np.count_nonzero(is_control & ~is_bank)),
        oddities=+oddities,
    )


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


def _match_note_offs(key: np.ndarray, rows: np.ndarray, is_off: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches note-ons and note-offs of each key first in, first out.

    key, rows: int64, of all note-ons and note-offs. is_off: bool [M], of each message, True for note-offs.
    Returns the rows of the note-ons, sorted by key, the row of the note-off that ends each, -1 without one, and their keys.
    """
    bits = len(is_off).bit_length()
    ordered = np.sort(key << bits | rows)
    rows, key = ordered & (1 << bits) - 1, ordered >> bits
    off = is_off[rows]
    if len(rows) % 2 == 0 and off[1::2].all() and not off[::2].any() and (key[::2] == key[1::2]).all():
        return rows[::2], rows[1::2], key[::2]  # each note ends before the next one of its key begins
    # Running count of note-ons minus note-offs; each key starts far below the end of the previous key. A note-off that takes
    # the count to a new minimum has no note to end.
    step = np.where(off, -1, 1)
    first = np.append(True, key[1:] != key[:-1])
    group = np.cumsum(first) - 1  # number of the key
    sounding = np.cumsum(step - first * 2 * (len(rows) + 1))
    floor = (sounding - step)[first][group]
    lowest = np.minimum(np.concatenate([[0], np.minimum.accumulate(sounding)])[:-1], floor)
    ends = off & (sounding >= lowest)
    # The n-th matching note-off of a key ends its n-th note.
    group_on, group_off = group[~off], group[ends]
    num_on, num_off = (np.bincount(groups, minlength=np.count_nonzero(first)) for groups in (group_on, group_off))
    last_off = np.cumsum(num_off)
    place = np.arange(len(group_on)) + (last_off - num_off - np.cumsum(num_on) + num_on)[group_on]
    ended = np.full(len(group_on), -1)
    found = place < last_off[group_on]
    ended[found] = rows[ends][place[found]]
    return rows[~off], ended, key[~off]
