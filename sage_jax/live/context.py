"""Context: the notes that the model of a live session should have read, and what of it has changed."""

import bisect
import dataclasses
import math
from collections.abc import Iterable, Iterator

from sage_jax.decoding.session import Session
from sage_jax.errors import UserError
from sage_jax.live.queue import PlannedNote
from sage_jax.tasks.role_session import RoleSession

Key = tuple[int, int, int]  # tick, program, pitch


@dataclasses.dataclass
class Entry:
    """A note of the context. is_own: of the model. is_given: it sounds or has sounded; always, of a player's note."""

    note: PlannedNote
    is_own: bool
    is_given: bool


class Context:
    """The player's notes and the model's in order of time, and the first tick at which a decoding session differs from them.

    `sync` makes the session equal to it again, with one rollback to that tick, but for changes that it holds. At one tick a
    program has a pitch only once; the player's note goes first. most: notes that are remembered at least; the model reads no
    more than these.
    """

    def __init__(self, most: int):
        self._most = most
        self._entries: dict[Key, Entry] = {}
        self._keys: list[Key] = []
        self._changes: dict[tuple[int, bool], float | tuple[int, int]] = {}  # (tick, is_tempo): value
        self.dirty: int | None = None
        self._read_to: float = math.inf  # later changes wait, see `hold`
        self.beyond = 0  # changes that the model could not read any more

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> Entry | None:
        """The note at (tick, program, pitch)."""
        return self._entries.get(key)

    def entries(self, start: int) -> Iterator[Entry]:
        """The notes from the tick `start` on, in order."""
        for key in self._keys[bisect.bisect_left(self._keys, (start,)) :]:
            yield self._entries[key]

    def changes(self, start: int) -> tuple[list, list]:
        """Changes of the tempo and of the meter from the tick `start` on that are to be read now, each with its tick."""
        places = [place for place in self._changes if start <= place[0] <= self._read_to]
        tempos = [(tick, self._changes[tick, True]) for tick, is_tempo in places if is_tempo]
        return tempos, [(tick, self._changes[tick, False]) for tick, is_tempo in places if not is_tempo]

    # Changes

    def set(self, note: PlannedNote, is_own: bool, reads_length: bool = True) -> None:
        """Adds a note that has been played, or replaces it. A player's note takes the place of the model's.

        reads_length: whether the session reads lengths of the player's notes.
        """
        key = note[:3]
        entry = self._entries.get(key)
        if entry is not None and ((is_own and not entry.is_own) or entry.note == note):
            entry.is_given = True
            return
        is_read = entry is not None and not entry.is_own and entry.note._replace(duration=note.duration) == note
        self._insert(key, Entry(note, is_own, True))
        if reads_length or not is_read:
            self.touch(note.tick)

    def drawn(self, note: PlannedNote) -> None:
        """Adds a note that the session has drawn, and that has not sounded yet."""
        if note[:3] in self._entries:  # the player has played it, which the session has not read yet
            self.touch(note.tick)
        else:
            self._insert(note[:3], Entry(note, True, False))

    def _insert(self, key: Key, entry: Entry) -> None:
        if key not in self._entries:
            bisect.insort(self._keys, key)
        self._entries[key] = entry
        if len(self._keys) > 2 * self._most:
            for old in self._keys[: self._most]:
                del self._entries[old]
            del self._keys[: self._most]

    def given(self, notes: Iterable[PlannedNote]) -> None:
        """These notes of the model were given out; those that had been taken back are in the context again."""
        for note in notes:
            self.set(note, is_own=True)

    def remove(self, notes: Iterable[PlannedNote]) -> None:
        """Takes out notes of the model that will not sound."""
        for note in notes:
            entry = self._entries.get(note[:3])
            if entry is not None and entry.is_own and not entry.is_given:
                self._remove(note[:3])

    def drop_planned(self, start: int) -> None:
        """Takes out the model's notes from the tick `start` on that were not given out."""
        for entry in list(self.entries(start)):
            if not entry.is_given:
                self._remove(entry.note[:3])

    def _remove(self, key: Key) -> None:
        del self._entries[key]
        del self._keys[bisect.bisect_left(self._keys, key)]
        self.touch(key[0])

    def change(self, tick: int, value: float | tuple[int, int]) -> None:
        """A change of the tempo, quarters per minute, or of the meter, which lies on a bar line."""
        is_tempo = not isinstance(value, tuple)
        self._changes = {place: each for place, each in self._changes.items() if place[0] <= tick or place[1] != is_tempo}
        self._changes[tick, is_tempo] = value
        if tick <= self._read_to:
            self.touch(tick)

    def hold(self, tick: int) -> None:
        """The model draws from `tick` on. Later changes wait until `reach`, also those that the session has read.

        Once a change is read, nothing can be drawn before it.
        """
        self._touch_change(*sorted((tick, self._read_to)))
        self._read_to = tick

    def reach(self, tick: float) -> None:
        """The model has drawn all before `tick`: changes up to there are to be read."""
        if tick > self._read_to:
            self._touch_change(self._read_to, tick)
            self._read_to = tick

    def _touch_change(self, after: float, to: float) -> None:
        """Touches the first change in the ticks (after, to]."""
        places = [tick for tick, _ in self._changes if after < tick <= to]
        if places:
            self.touch(min(places))

    def touch(self, tick: int) -> None:
        """The session may differ from the tick `tick` on."""
        self.dirty = tick if self.dirty is None else min(self.dirty, tick)

    # The session

    def sync(self, session: Session | RoleSession) -> bool:
        """Makes the session's notes those of the context; returns whether it had to go back.

        Where the model no longer reads the place of a change, the session keeps what it has there, and the change is counted.
        """
        if self.dirty is None:
            return False
        start, last = max(self.dirty, 0), session.tick
        self.dirty = None
        try:
            self._replace(session, start)
        except UserError:
            self.beyond += 1
            self._replace(session, last + 1)
        return start <= last

    def _replace(self, session: Session | RoleSession, start: int) -> None:
        entries = list(self.entries(start))
        roles = dict(own=[entry.is_own for entry in entries]) if isinstance(session, RoleSession) else {}
        session.replace(start, [entry.note for entry in entries], *self.changes(start), **roles)
