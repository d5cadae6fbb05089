"""Many requests over one engine: rows join and leave a batch, and long rows move to new windows while the others go on."""

import collections
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from sage_jax.decoding.engine import OFFER, Engine
from sage_jax.decoding.request import Continuation, Progress, Request, Window
from sage_jax.decoding.staging import Staged, StagingArea
from sage_jax.decoding.totals import Totals
from sage_jax.errors import UserError
from sage_jax.tokenizers.note_events import ONSET, PAD

WINDOW_FRACTION = 0.75  # of the context; the rest is for new events
UNBOUNDED = 1 << 30
SHORT = 2  # given events that are read one by one rather than as a chunk
PATIENCE = 4  # one stopped row of this many active ones is the most that waits for others to be prefilled with


class Scheduler:
    """Runs requests over an engine. What a row draws does not depend on the others.

    interleaved: one row at a time is prefilled, with an event step between two readings, and a new window of a row in small
    chunks alone; for players who wait for the next note. Otherwise rows wait for each other and are prefilled together. The
    events are the same. window_length: the most events that are read of a prompt, and when a row goes on in a new window. A
    smaller one is quicker to read. restarts: how often a session's whole window was read anew.
    """

    def __init__(self, engine: Engine, *, interleaved: bool = False, window_length: int | None = None):
        self.engine, self.interleaved = engine, interleaved
        self.totals, self.restarts = Totals(), 0
        self._waiting: collections.deque[Progress] = collections.deque()
        self._rows: list[Progress | None] = [None] * engine.rows
        self._staging = StagingArea(engine, 1 if interleaved else engine.staging_rows)
        self._finished: list[Continuation] = []  # not yet returned by a turn
        self._lengths = np.zeros(engine.rows, np.int64)
        self._known = np.zeros(engine.rows, np.int64)  # events of each row that are given, whether read or queued
        self._done = np.ones(engine.rows, bool)
        self._unread: collections.deque[tuple[jax.Array, list[Window | None]]] = collections.deque()
        self.window_length = window_length or int(WINDOW_FRACTION * engine.limit)
        # A row's next window is cut `ahead` events before its cache is full, and prefilled while they are drawn.
        self._ahead = min(self.window_length // engine.stage_chunk + 3, engine.limit // 4)

    def submit(self, request: Request) -> Progress:
        """Queues a request. It joins as soon as a row is free."""
        row = Progress(request, self.engine.tokenizer, self.window_length)
        self._waiting.append(row)
        return row

    def run(self, requests: Iterable[Request]) -> Iterator[Continuation]:
        """The continuations of all requests, each as soon as it is finished."""
        for request in requests:
            self.submit(request)
        while self.busy:
            yield from self.turn()

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished. Sessions that wait are not."""
        rows = [row for row in self._rows if row is not None and not row.is_parked]
        return bool(self._waiting or rows or self._finished or self._staging.taken)

    @property
    def is_staging(self) -> bool:
        """Whether a row's window is being prefilled."""
        return bool(self._staging.taken)

    @property
    def sessions(self) -> int:
        """The number of rows that `open` made and that are not closed."""
        return sum(row is not None and row.is_open for row in self._rows)

    def turn(self, max_steps: int = UNBOUNDED) -> list[Continuation]:
        """Prefills what can be, and steps the rows: until one stops, or `max_steps`. Returns what is finished.

        After single steps the outbox of each row has its new events.
        """
        began, compiled = time.perf_counter(), self.engine.compile_seconds
        has_read = self.read_queues()
        if self.interleaved:
            self._prefill()
        else:
            while self._prefill(self._wanted()):
                has_read = True
            if has_read:
                self.engine.wait()  # else prefills that still run would count as event steps
            began, compiled = self._count_seconds("prefill_seconds", began, compiled)
        self._step(max_steps)
        self._finish()
        self._count_seconds("decode_seconds", began, compiled)
        finished, self._finished = self._finished, []
        return finished

    def _count_seconds(self, name: str, began: float, compiled: float) -> tuple[float, float]:
        now, compile_seconds = time.perf_counter(), self.engine.compile_seconds
        setattr(self.totals, name, getattr(self.totals, name) + now - began - (compile_seconds - compiled))
        return now, compile_seconds

    # Prefill

    def _prefill(self, at_least: int = 1) -> bool:
        """Reads on in the staged rows, if they are enough, and inserts those that are complete. Returns whether it did."""
        self._fill_places()
        ready = (len(staged.rows) for place, staged in self._staging if self._is_ready(place, staged))
        if sum(ready) < at_least:
            return False
        begun = self._staging.begin(self.interleaved)
        self._insert_complete()
        if not (begun and self.interleaved):
            self._staging.read()
            self._insert_complete()
        return True

    def _insert_complete(self) -> None:
        for place, staged in list(self._staging):
            if self._is_whole(staged) and not staged.queued:
                self._insert(place, staged)

    def _wanted(self) -> int:
        """How many rows are worth a prefill where no player waits: as many as there are places, fewer if few are active."""
        return max(min(len(self._staging), -(-len(self._active()) // PATIENCE)), 1)

    def _fill_places(self) -> None:
        """Stages rows that need a new window, and then new requests if there are free rows."""
        moving = collections.deque(self._moving())
        if moving and self.interleaved:
            self._waiting.extendleft(self._staging.take_new())  # a row that plays goes first
        while True:
            may_join = self._join()
            free = self._staging.free
            if free and moving:
                slot = moving.popleft()
                staged = Staged(self._row(slot), self._next_window(slot), slot)
            elif free and may_join:
                row = self._waiting.popleft()
                staged = Staged(row, row.window, None)
            else:
                return
            self._stage(free[0], staged)

    def _join(self) -> bool:
        """The first of the new requests join those of the same window. Returns whether another could be staged by itself."""
        while self._waiting and self._staging.joining < self._rows.count(None):
            if not self._staging.join(self._waiting[0]):
                return True
            self._waiting.popleft()
        return False

    def _stage(self, place: int, staged: Staged) -> None:
        self._staging.put(place, staged, self._controls(staged.row, staged.window))

    def _is_whole(self, staged: Staged) -> bool:
        """Whether nothing will be added to the staged window."""
        return staged.slot is None or self._lengths[staged.slot] >= self.engine.limit

    def _is_ready(self, place: int, staged: Staged) -> bool:
        """Whether the staged row has a chunk to read, or is complete. Its last reading follows what the row has drawn."""
        if staged.slot is not None and (not self.interleaved or staged.queued <= self.engine.stage_chunk):
            window = self._followed(staged.slot, staged.window)
            if len(window.given) > len(staged.window.given):
                self._staging.follow(place, window, self._controls(staged.row, window))
        # Only the last chunk may be short: how a row is cut into chunks must not depend on when they are read.
        return self._is_whole(staged) or staged.queued >= self.engine.stage_chunk

    def _insert(self, place: int, staged: Staged) -> None:
        length = len(staged.window.given)
        if staged.slot is not None:
            drawn = self._drawn(staged.slot, int(self._lengths[staged.slot]))
            staged.row.events, staged.row.window = staged.row.whole(drawn), staged.window
        for row in staged.rows:
            slot = self._rows.index(None) if staged.slot is None else staged.slot
            self._staging.insert(place, row, slot, self._controls(row, row.window))
            self._rows[slot], self._lengths[slot], self._known[slot], self._done[slot] = row, length, length, False
        self._staging.finish(place)

    def _row(self, slot: int) -> Progress:
        row = self._rows[slot]
        assert row is not None
        return row

    def _moving(self) -> Iterator[int]:
        """The rows that need a new window, or will soon if prefill is interleaved."""
        mark = self.engine.limit - self._ahead if self.interleaved else self.engine.limit
        staged = [each.slot for each in self._staging.taken]
        for slot, row in enumerate(self._rows):
            if row is None or self._done[slot] or slot in staged or self._lengths[slot] < mark:
                continue
            if row.most(row.window, self.engine.decoder.lag) > self.engine.limit:
                yield slot

    def _next_window(self, slot: int) -> Window:
        """The row's next window, cut when it was about to fill its cache."""
        row = self._row(slot)
        drawn = self._drawn(slot, self.engine.limit - self._ahead)
        return row.cut(row.whole(drawn), self.window_length - self._ahead)

    def _followed(self, slot: int, window: Window) -> Window:
        """The row's next window with what the row has drawn since."""
        row, length = self._row(slot), int(self._lengths[slot])
        total = len(row.events) + length - self.engine.decoder.lag - len(row.window.given)
        missing = total - window.offset - len(window.given)
        return row.follow(window, self._drawn(slot, length)[-missing:]) if missing > 0 else window

    def _drawn(self, slot: int, length: int) -> np.ndarray:
        """The events that the row had drawn after its window when it had `length` cached events, [N, A]."""
        return self.engine.events(slot, length - self.engine.decoder.lag)[len(self._row(slot).window.given) :]

    def _controls(self, row: Progress, window: Window):
        return row.controls(window, self.engine.limit, self.engine.decoder.lag)

    # Event steps

    def _bound(self, slot: int) -> int:
        """The length at which the row stops until something is done for it: its end, a full cache, or a full context."""
        row, engine = self._row(slot), self.engine
        return min(row.most(row.window, engine.decoder.lag), engine.limit, engine.capacity - 1)

    def _active(self) -> list[int]:
        """The rows that the next event step extends."""
        rows = [slot for slot, row in enumerate(self._rows) if row is not None]
        return [slot for slot in rows if not self._done[slot] and self._lengths[slot] < self._bound(slot)]

    def _step(self, max_steps: int) -> None:
        active = self._active()
        if active:
            if any(self._row(slot).is_open for slot in active):
                max_steps = 1  # each of its events is for the outbox
            if self.interleaved:
                mark = self.engine.limit - self._ahead
                until_mark = [mark - self._lengths[slot] for slot in active if self._lengths[slot] < mark]
                is_prefilling = self.is_staging or (self._waiting and None in self._rows)
                max_steps = 1 if is_prefilling else int(min([max_steps, *until_mark]))
            stopping = 1 if self.interleaved else max(self._wanted() - self._staging.waiting, 1)
            # With one step the host does not know yet which rows the step before has stopped.
            shown = self.engine.decode(max_steps, 1 if max_steps == 1 else len(active) - stopping + 1)
            self._unread.append((shown, [None if row is None else row.window for row in self._rows]))
        # What a single step brought is read after the next one has begun, so that neither host nor device waits.
        self._read_all_but(1 if active and max_steps == 1 else 0)

    def _read_all_but(self, last: int) -> None:
        while len(self._unread) > last:
            self._read(*self._unread.popleft())

    def _read(self, shown: jax.Array, windows: list[Window | None]) -> None:
        values = np.array(shown)
        self.totals.row_steps += int(values[0, -1]) * len(values)
        for slot, (row, window) in enumerate(zip(self._rows, windows, strict=True)):
            if row is None or row.window is not window:  # a row that came since
                continue
            self._lengths[slot], self._done[slot] = values[slot, -3], values[slot, -2]
            if values[slot, ONSET] != PAD:
                row.outbox.append(values[slot, :-3])

    def _finish(self) -> None:
        lag = self.engine.decoder.lag
        for slot, row in enumerate(self._rows):
            if row is None or row.is_parked:
                continue
            length = int(self._lengths[slot])
            if self._done[slot] or length >= row.most(row.window, lag):
                self._staging.remove(row)
                if row.is_open:
                    row.is_parked = True
                    continue
                events = row.whole(self._drawn(slot, length))[len(row.request.events) :]
                self.totals.events += len(events)
                self._finished.append(Continuation(row.request, events, bool(self._done[slot])))
                self._rows[slot] = None
            elif length == self.engine.capacity - 1 and length < self.engine.limit:
                self.engine.grow()

    # Sessions

    def open(self, request: Request) -> Progress:
        """A row that stays: it waits when it reaches a bound of its limits. Raises UserError if every row is taken.

        A row that is on its way to a new window gets there first.
        """
        if self._rows.count(None) <= self._staging.joining or self._waiting:
            raise UserError(f"engine.rows is {self.engine.rows} and all are taken; close a session, or give more rows")
        row = Progress(request, self.engine.tokenizer, self.window_length, is_open=True)
        self._waiting.append(row)
        self._settle(row)
        return row

    def _settle(self, row: Progress) -> None:
        """Prefills until the row is in the batch. The others wait: if they went on, it would take almost twice as long."""
        while row not in self._rows:
            if not self._prefill():  # another row goes first
                self._step(1)
                self._finish()

    def close(self, row: Progress) -> None:
        """Frees the row of a session."""
        self._staging.remove(row)
        self._free(self._rows.index(row))

    def _free(self, slot: int) -> None:
        self.engine.release(slot)
        self._rows[slot] = None

    def revise(
        self,
        row: Progress,
        keep: int,
        events: np.ndarray,
        request: Request,
        history: np.ndarray | None = None,
        keys: np.ndarray | None = None,
    ) -> None:
        """Keeps the first `keep` events of a session, queues events [N, A] after them, and goes on with the settings of
        `request`. The next turn reads the queues of all rows together.

        history: the first `keep` events, which are read again if they are no longer in the row's window. Without them, raises
        UserError as `Progress.keep`; the session then stays as it is. keys: int [N] makes the events an offer of which the row
        may leave the end, see `Progress`. An offer has at most OFFER events, and with all of them the row's window is not
        full.
        """
        slot = self._rows.index(row)
        try:
            kept = row.keep(keep)
        except UserError:
            if history is None:
                raise
            self._restart(row, slot, np.concatenate([history, events]), request)
            return
        if kept + len(events) > self.engine.limit - self._ahead:
            drawn = self.engine.events(slot, kept)[len(row.window.given) :]
            self._restart(row, slot, row.whole(np.concatenate([drawn, events])), request)
            return
        self._renew(row, request)
        known = kept + len(events)
        given = np.zeros((known, self.engine.config.num_attributes), np.int16)
        given[kept:] = events
        self.engine.edit(slot, kept, given, self._controls(row, row.window))
        if kept < self._lengths[slot]:
            self._lengths[slot] = max(min(kept, known - 1), 0)  # without a queue the last event is read again
        self._known[slot], self._done[slot] = known, False
        row.keys = keys

    def read_queues(self) -> bool:
        """Reads what sessions were given, several rows at once, but for the last few events. Returns whether there was any.

        A row's whole queue is read before the next event step: how it is cut into chunks must not depend on other rows.
        """
        offered = [slot for slot, row in enumerate(self._rows) if row is not None and row.keys is not None]
        if not offered and not self._queued():
            return False
        self._read_all_but(0)  # else a step that began before would bring lengths of before
        for first in range(0, len(offered), self.engine.group):
            self._offer(offered[first : first + self.engine.group])
        while slots := self._queued():
            for first in range(0, len(slots), self.engine.group):
                self.engine.prefill(*slots[first : first + self.engine.group])
            self._lengths[slots] = np.minimum(self._lengths[slots] + self.engine.chunk, self._known[slots])
        return True

    def _offer(self, slots: list[int]) -> None:
        """The rows read of what they are offered as much as they come to."""
        while self._lengths[slots].max() + OFFER > self.engine.capacity:
            self.engine.grow()
        keys = np.zeros((len(slots), OFFER), np.int32)
        for place, slot in enumerate(slots):
            if (own := self._row(slot).keys) is not None:
                keys[place, : len(own)] = own
        for slot, count in zip(slots, self.engine.offer(slots, keys), strict=True):
            row = self._row(slot)
            row.keys, row.read = None, int(count)
            self._lengths[slot] += count
            self._known[slot] = self._lengths[slot]

    def _queued(self) -> list[int]:
        """The rows with a queue that is worth a prefill."""
        chunk = self.engine.chunk
        return [
            slot
            for slot, row in enumerate(self._rows)
            if row is not None
            and self._known[slot] - self._lengths[slot] > SHORT
            and self._lengths[slot] + chunk <= self.engine.capacity
        ]

    def _renew(self, row: Progress, request: Request) -> None:
        row.renew(request)
        row.outbox.clear()
        self._staging.remove(row)

    def _restart(self, row: Progress, slot: int, events: np.ndarray, request: Request) -> None:
        """Reads the last bars of `events` [N, A], the piece so far, as a new window of a session in the row `slot`."""
        self._renew(row, request)
        row.events = events.astype(np.int16)
        row.window = row.cut(row.events, self.window_length)
        self.restarts += 1
        self._waiting.extendleft(self._staging.take_new())
        self._stage(0, Staged(row, row.window, None))
        self._free(slot)
        self._settle(row)
