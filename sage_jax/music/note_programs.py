"""The program of each note: program changes, banks and drum parts of a file's messages. reading.py states the rules."""

import numpy as np

from sage_jax.music.messages import CONTROL, PROGRAM, Messages
from sage_jax.music.notes import DRUMS
from sage_jax.music.system_events import CHANNELS, DRUM_CHANNEL, SystemEvents

BANK_SELECT = (0, 32)  # controller numbers: most and least significant byte of the bank


def lines(messages: Messages, rows: np.ndarray) -> np.ndarray:
    """The line of each of `rows`, int64 [R]. A line is a channel of a track."""
    return messages.track[rows] * CHANNELS + (messages.status[rows] & np.uint8(0xF))


def begins_of_runs(values: np.ndarray) -> np.ndarray:
    """The index at which each run of equal values begins. values: [N], N > 0."""
    return np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)


class NotePrograms:
    """Finds the programs of notes.

    tick: int64 [M], of each message. latest: no note begins after this tick.
    """

    def __init__(self, messages: Messages, system: SystemEvents, tick: np.ndarray, latest: int):
        self._messages, self._system, self._tick = messages, system, tick
        self._scale = latest + 2
        status = messages.status & np.uint8(0xF0)
        self._changes = np.flatnonzero(status == PROGRAM)
        banks = np.flatnonzero((status == CONTROL) & (messages.data1 == BANK_SELECT[0]))
        self._is_kit = np.zeros(len(self._changes), bool)
        if len(banks):
            bank = self._latest(banks, self._changes)
            self._is_kit = (bank >= 0) & np.isin(messages.data2[banks[bank]], system.drum_banks)
        self._drum_parts = np.array([(-1, 0, -1), *system.drum_parts()], np.int64)

    def of_notes(self, notes: np.ndarray, line: np.ndarray) -> np.ndarray:
        """The program of each note, int64 [N]. notes, line: int64 [N], rows and lines of the note-ons, sorted by line."""
        if not len(notes):
            return notes
        # Mostly all programs are stated before the first note. Then all notes of a line have the program of its first one.
        begins = begins_of_runs(line)
        earliest = np.minimum.reduceat(notes, begins)
        begin = self._tick[earliest].min()
        if not (self._drum_parts[:, 1] <= begin).all() or not (self._tick[self._changes] <= begin).all():
            return self._of(notes)
        changed = lines(self._messages, self._changes)
        place = np.searchsorted(line[begins], changed, "right") - 1
        if ((self._changes > earliest[place]) & (changed == line[begins[place]])).any():
            return self._of(notes)
        return np.repeat(self._of(earliest), np.diff(np.append(begins, len(notes))))

    def _of(self, notes: np.ndarray) -> np.ndarray:
        """The program of each of the note-ons in the rows `notes`, in any order."""
        change, part = self._latest(self._changes, notes), self._part(notes)
        changed = change >= 0
        program, is_drums = np.zeros(len(notes), np.int64), part % CHANNELS == DRUM_CHANNEL
        program[changed] = self._messages.data1[self._changes[change[changed]]]
        is_drums[changed] |= self._is_kit[change[changed]]
        if len(self._drum_parts) > 1:
            stated_part, at, drums = self._drum_parts.T
            key = stated_part * self._scale + np.minimum(at, self._scale - 1)
            order = np.argsort(key, kind="stable")
            # The last drum-part message for each note's part: 1 for drums, 0 for melodic, -1 for the default.
            last = order[np.searchsorted(key[order], part * self._scale + self._tick[notes], "right") - 1]
            override = np.where(stated_part[last] == part, drums[last], -1)
            is_drums = np.where(override < 0, is_drums, override > 0)
        return np.where(is_drums, DRUMS, program)

    def _latest(self, events: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """The index in `events` of the event in force at each of the rows `queries`, or -1. events: rows.

        The event in force is the last earlier one on the query's line. Without one, it is the last event of the query's part
        whose tick is not later.
        """
        found = np.full(len(queries), -1)
        if not len(events) or not len(queries):
            return found
        messages = self._messages
        for owner, wanted, time, until, size in (
            (self._part(events), self._part(queries), self._time(events), self._time(queries), self._scale),
            (lines(messages, events), lines(messages, queries), events, queries, len(self._tick)),
        ):
            key = owner * size + time
            order = np.argsort(key, kind="stable")
            index = np.searchsorted(key[order], wanted * size + until, "right") - 1
            candidate = order[index]
            found = np.where((index >= 0) & (owner[candidate] == wanted), candidate, found)
        return found

    def _part(self, rows: np.ndarray) -> np.ndarray:
        return self._system.first_parts[self._messages.track[rows]] + (self._messages.status[rows] & np.uint8(0xF))

    def _time(self, rows: np.ndarray) -> np.ndarray:
        return np.minimum(self._tick[rows], self._scale - 1)
