"""The staging area of a scheduler: which windows are prefilled there, and how far they are read."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Progress, Window
from sage_jax.decoding.state import Controls


@dataclasses.dataclass(eq=False)
class Staged:
    """A row whose window is in the staging area.

    slot: the row of the batch that it moves from; None for a new request. at_once: whether its first events are read many at
    once, while all others wait. read: events of the window that are prefilled. drawn: what the row had drawn after its present
    window when the staged one was last followed, int16 [N, A].
    twins: further new requests with the same window, such as takes of one prompt: it is read once for all of them.
    is_copy: whether the settings in the staging area are of another request, which had the same window before.
    """

    row: Progress
    window: Window
    slot: int | None
    at_once: bool
    read: int = 0
    drawn: np.ndarray | None = None
    twins: list[Progress] = dataclasses.field(default_factory=list)
    is_copy: bool = False

    @property
    def queued(self) -> int:
        """The events that are not prefilled yet."""
        return len(self.window.given) - self.read

    @property
    def rows(self) -> list[Progress]:
        """All requests that wait for this window, the first one first."""
        return [self.row, *self.twins]


class StagingArea:
    """`places` rows of an engine's staging area, each free or with a staged row.

    A free place keeps the prompt that was read there last, for a request that has the same. at_once: of new requests, see
    `Staged`.
    """

    def __init__(self, engine: Engine, places: int, at_once: bool):
        self._engine, self.at_once = engine, at_once
        self._places: list[Staged | None] = [None] * places
        self._kept: list[Staged | None] = [None] * places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[tuple[int, Staged]]:
        """The places that are taken, and what is there."""
        return ((place, staged) for place, staged in enumerate(self._places) if staged is not None)

    @property
    def taken(self) -> list[Staged]:
        """What is staged."""
        return [staged for _, staged in self]

    @property
    def free(self) -> list[int]:
        """The free places."""
        return [place for place, staged in enumerate(self._places) if staged is None]

    @property
    def waiting(self) -> int:
        """How many rows wait for what is staged."""
        return sum(len(staged.rows) for staged in self.taken)

    @property
    def joining(self) -> int:
        """How many new requests are staged: each needs a free row of the batch."""
        return sum(len(staged.rows) for staged in self.taken if staged.slot is None)

    def put(self, place: int, staged: Staged, controls: Controls) -> None:
        """Stages a row at a place, in place of what was there."""
        self._places[place], self._kept[place] = staged, None
        self._engine.stage(staged.window.given, controls, place=place)

    def join(self, row: Progress) -> bool:
        """Stages a new request whose window is staged already for others, or was the last one at a place that is free now.

        Returns whether there is one that was read in the same way. It need not be read again.
        """
        for staged in self.taken:
            if staged.slot is None and self._is_same(staged, row):
                staged.twins.append(row)
                return True
        for place in self.free:
            kept = self._kept[place]
            if kept is not None and self._is_same(kept, row):
                self._places[place] = Staged(row, row.window, None, self.at_once, len(row.window.given), is_copy=True)
                return True
        return False

    def _is_same(self, staged: Staged, row: Progress) -> bool:
        """Whether the new request would read what is staged, to the bit."""
        return staged.at_once == self.at_once and np.array_equal(staged.window.given, row.window.given)

    def follow(self, place: int, window: Window, controls: Controls) -> None:
        """Replaces the window of the row at a place by a longer one that begins with it."""
        staged = self._places[place]
        assert staged is not None
        self._engine.stage(window.given, controls, len(staged.window.given), place)
        staged.window = window

    def begin(self) -> bool:
        """Reads the first events of new rows whose `at_once` is set. Returns whether there were any."""
        begun = 0
        for place, staged in self:
            if staged.at_once and not staged.read:
                staged.read = self._engine.begin_staged(staged.queued, place)
                begun += staged.read
        return begun > 0

    def read(self) -> None:
        """Reads one chunk of each staged row. None may be complete: what is read of others would be written over its end."""
        if self.taken:
            self._engine.prefill_staged()
        for staged in self.taken:
            staged.read += min(staged.queued, self._engine.stage_chunk)

    def insert(self, place: int, row: Progress, slot: int, controls: Controls) -> None:
        """Copies what is read at a place into the row `slot` of the batch, for `row`, one of the requests that wait for it."""
        staged = self._places[place]
        assert staged is not None and not staged.queued
        length = len(staged.window.given)
        self._engine.insert_staged(slot, length, place)
        if staged.is_copy or row is not staged.row:
            self._engine.edit(slot, length, staged.window.given, controls)

    def finish(self, place: int) -> None:
        """Makes a place free after all that waited for it are in the batch."""
        staged, self._places[place] = self._places[place], None
        assert staged is not None
        length = len(staged.window.given)
        # Chunks that other places read are written after its events, too.
        if staged.slot is None and length + self._engine.stage_chunk <= self._engine.stage_capacity:
            self._kept[place] = staged

    def take_new(self) -> list[Progress]:
        """Gives up what is staged for new requests, and returns these, the last one first. They are read anew later.

        A window that is read anew for its player stays.
        """
        given_up = [staged for staged in self.taken if staged.slot is None and staged.at_once == self.at_once]
        self._places = [None if staged in given_up else staged for staged in self._places]
        return [row for staged in given_up for row in staged.rows][::-1]

    def remove(self, row: Progress) -> None:
        """Gives up the window of `row`, if it is staged."""
        self._places = [None if staged is not None and staged.row is row else staged for staged in self._places]
