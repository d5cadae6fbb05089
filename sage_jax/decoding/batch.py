"""The batch of a scheduler: what the host knows of each row of an engine."""

import collections
from collections.abc import Callable, Iterator

import jax
import numpy as np

from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Progress, Window
from sage_jax.tokenizers.note_events import ONSET, PAD


class Batch:
    """The rows of an engine, each free or taken by a request or a session.

    What a step brought is known once it has been read, and that may wait until the next step has begun. lengths: int64 [B],
    cached events. known: int64 [B], events that are given, whether read or queued. done: bool [B]. row_steps: event steps of
    all rows, including idle ones.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self.lengths = np.zeros(engine.rows, np.int64)
        self.known = np.zeros(engine.rows, np.int64)
        self.done = np.ones(engine.rows, bool)
        self.row_steps = 0
        self._rows: list[Progress | None] = [None] * engine.rows
        self._unread: collections.deque[tuple[jax.Array, list[Window | None]]] = collections.deque()

    def __iter__(self) -> Iterator[tuple[int, Progress]]:
        """The rows that are taken, with their numbers."""
        return ((slot, row) for slot, row in enumerate(self._rows) if row is not None)

    def __contains__(self, row: Progress) -> bool:
        return row in self._rows

    def __getitem__(self, slot: int) -> Progress:
        row = self._rows[slot]
        assert row is not None
        return row

    @property
    def num_free(self) -> int:
        """The number of free rows."""
        return self._rows.count(None)

    @property
    def first_free(self) -> int:
        """The number of a free row."""
        return self._rows.index(None)

    def slot_of(self, row: Progress) -> int:
        """The number of the row that is taken by `row`."""
        return self._rows.index(row)

    def put(self, slot: int, row: Progress, length: int) -> None:
        """Takes a row, of which `length` events are read."""
        self._rows[slot], self.lengths[slot], self.known[slot], self.done[slot] = row, length, length, False

    def remove(self, slot: int) -> None:
        """Makes a row free."""
        self._rows[slot] = None

    # Event steps

    def bound(self, slot: int) -> int:
        """The length at which the row stops until something is done for it: its end, a full cache, or a full context."""
        row, engine = self[slot], self._engine
        return min(row.most(row.window, engine.decoder.lag), engine.limit, engine.capacity - 1)

    @property
    def active(self) -> list[int]:
        """The rows that the next event step extends."""
        return [slot for slot, _ in self if not self.done[slot] and self.lengths[slot] < self.bound(slot)]

    def reaches(self, slot: int, length: int) -> bool:
        """Whether the row has `length` cached events, or may have with the steps that have begun."""
        return self.lengths[slot] + len(self._unread) >= length

    def step(self, max_steps: int, min_active: int) -> None:
        """Begins event steps, as `Engine.decode`."""
        shown = self._engine.decode(max_steps, min_active)
        self._unread.append((shown, [None if row is None else row.window for row in self._rows]))

    def read_all_but(self, last: int) -> None:
        """Reads what the steps brought, up to the `last` ones. Waits for the device."""
        while len(self._unread) > last:
            self._read(*self._unread.popleft())

    def _read(self, shown: jax.Array, windows: list[Window | None]) -> None:
        values = np.array(shown)
        self.row_steps += int(values[0, -1]) * len(values)
        for slot, row in self:
            if row.window is not windows[slot]:  # a row that came since
                continue
            self.lengths[slot], self.done[slot] = values[slot, -3], values[slot, -2]
            if values[slot, ONSET] != PAD:
                row.outbox.append(values[slot, :-3])

    # Events

    def drawn(self, slot: int, length: int) -> np.ndarray:
        """The events that the row had drawn after its window when it had `length` cached events, int16 [N, A].

        Waits for the device.
        """
        return self.fetch(slot, length)()

    def fetch(self, slot: int, length: int) -> Callable[[], np.ndarray]:
        """The same, for later: the function that this returns waits. The row may be used otherwise meanwhile."""
        first = len(self[slot].window.given)
        events = self._engine.fetch_events(slot, length - self._engine.decoder.lag)
        return lambda: events()[first:]
