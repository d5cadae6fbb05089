"""Many requests over one engine: rows join and leave a batch, and long rows move to new windows while the others go on."""

import collections
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sage_jax.decoding.batch import Batch
from sage_jax.decoding.engine import OFFER, Engine
from sage_jax.decoding.request import Continuation, Progress, Request, Window
from sage_jax.decoding.staging import Staged, StagingArea
from sage_jax.decoding.totals import Totals
from sage_jax.errors import UserError

WINDOW_FRACTION = 0.75  # of the context; the rest is for new events
UNBOUNDED = 1 << 30
SHORT = 2  # given events that are read one by one rather than as a chunk
PATIENCE = 4  # one stopped row of this many active ones is the most that waits for others to be prefilled with


class Scheduler:
    """Runs requests over an engine. What a row draws does not depend on the others.

    interleaved: one row at a time is prefilled, by a chunk before each event step; for players who wait for the next note. Many
    events are read at once only in an engine of one row, and of a session's window that is read anew. Otherwise rows wait for
    each other and are prefilled together. The events are the same. window_length: the most events that are read of a prompt,
    and when a row goes on in a new window. A smaller one is quicker to read. restarts: how often a session's whole window was
    read anew.
    """

    def __init__(self, engine: Engine, *, interleaved: bool = False, window_length: int | None = None):
        self.engine, self.interleaved = engine, interleaved
        self.totals, self.restarts = Totals(), 0
        self._waiting: collections.deque[Progress] = collections.deque()
        self._batch = Batch(engine)
        self._staging = StagingArea(engine, 1 if interleaved else engine.staging_rows, not interleaved or engine.rows == 1)
        self._ended: list[tuple[Progress, Callable[[], np.ndarray], bool]] = []  # rows, what they drew, whether they are done
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
        rows = [row for _, row in self._batch if not row.is_parked]
        return bool(self._waiting or rows or self._ended or self._staging.taken)

    @property
    def is_staging(self) -> bool:
        """Whether a row's window is being prefilled."""
        return bool(self._staging.taken)

    @property
    def sessions(self) -> int:
        """The number of rows that `open` made and that are not closed."""
        return sum(row.is_open for _, row in self._batch)

    def turn(self, max_steps: int = UNBOUNDED) -> list[Continuation]:
        """Prefills what can be, and steps the rows: until one stops, or `max_steps`. Returns what is finished.

        After single steps the outbox of each row has its new events. If rows are interleaved, a continuation is returned a turn
        late where others go on, so that they need not wait for it.
        """
        num_ended = len(self._ended)
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
        if not (self.interleaved and self._batch.active):
            num_ended = len(self._ended)
        finished = [self._continuation(*each) for each in self._ended[:num_ended]]
        del self._ended[:num_ended]
        self._count_seconds("decode_seconds", began, compiled)
        return finished

    def _continuation(self, row: Progress, drawn: Callable[[], np.ndarray], is_done: bool) -> Continuation:
        events = row.whole(drawn())[len(row.request.events) :]
        self.totals.events += len(events)
        return Continuation(row.request, events, is_done)

    def _count_seconds(self, name: str, began: float, compiled: float) -> tuple[float, float]:
        now, compile_seconds = time.perf_counter(), self.engine.compile_seconds
        setattr(self.totals, name, getattr(self.totals, name) + now - began - (compile_seconds - compiled))
        return now, compile_seconds

    # Prefill

    def _prefill(self, at_least: int = 1) -> bool:
        """Reads on in the staged rows, if they are enough, and inserts those that are complete. Returns whether it did."""
        moving = [staged.slot for staged in self._staging.taken if staged.slot is not None]
        if any(self._batch.reaches(slot, self.engine.limit) for slot in moving):
            self._batch.read_all_but(0)  # so that the row moves before the next step
        self._fill_places()
        ready = (len(staged.rows) for place, staged in self._staging if self._is_ready(place, staged))
        if sum(ready) < at_least:
            return False
        begun = self._staging.begin()
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
        return max(min(len(self._staging), -(-len(self._batch.active) // PATIENCE)), 1)

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
                staged = Staged(self._batch[slot], self._next_window(slot), slot, not self.interleaved)
            elif free and may_join:
                row = self._waiting.popleft()
                staged = Staged(row, row.window, None, self._staging.at_once)
            else:
                return
            self._stage(free[0], staged)

    def _join(self) -> bool:
        """The first of the new requests join those of the same window. Returns whether another could be staged by itself."""
        while self._waiting and self._staging.joining < self._batch.num_free:
            if not self._staging.join(self._waiting[0]):
                return True
            self._waiting.popleft()
        return False

    def _stage(self, place: int, staged: Staged) -> None:
        self._staging.put(place, staged, self._controls(staged.row, staged.window))

    def _is_whole(self, staged: Staged) -> bool:
        """Whether nothing will be added to the staged window."""
        slot = staged.slot
        return slot is None or (self._batch.lengths[slot] >= self.engine.limit and not self._batch.done[slot])

    def _is_ready(self, place: int, staged: Staged) -> bool:
        """Whether the staged row has a chunk to read, or is complete.

        What it has drawn since its window was cut is fetched when that makes a chunk, or is the rest of it.
        """
        # Only the last chunk may be short: how a row is cut into chunks must not depend on when they are read.
        chunk, is_whole = self.engine.stage_chunk, self._is_whole(staged)
        if staged.slot is not None and (is_whole or staged.queued < chunk):
            missing = self._missing(staged.slot, staged)
            if missing > 0 and (is_whole or staged.queued + missing >= chunk):
                staged.drawn = self._batch.drawn(staged.slot, int(self._batch.lengths[staged.slot]))
                window = staged.row.follow(staged.window, staged.drawn[-missing:])
                self._staging.follow(place, window, self._controls(staged.row, window))
        return is_whole or staged.queued >= chunk

    def _insert(self, place: int, staged: Staged) -> None:
        length = len(staged.window.given)
        if staged.slot is not None:
            assert staged.drawn is not None  # a window that is cut lacks the last events of the row
            staged.row.events, staged.row.window = staged.row.whole(staged.drawn), staged.window
        for row in staged.rows:
            slot = self._batch.first_free if staged.slot is None else staged.slot
            self._staging.insert(place, row, slot, self._controls(row, row.window))
            self._batch.put(slot, row, length)
        self._staging.finish(place)

    def _moving(self) -> Iterator[int]:
        """The rows that need a new window, or will soon if prefill is interleaved."""
        mark = self.engine.limit - self._ahead if self.interleaved else self.engine.limit
        staged = [each.slot for each in self._staging.taken]
        for slot, row in self._batch:
            if self._batch.done[slot] or slot in staged or self._batch.lengths[slot] < mark:
                continue
            if row.most(row.window, self.engine.decoder.lag) > self.engine.limit:
                yield slot

    def _next_window(self, slot: int) -> Window:
        """The row's next window, cut when it was about to fill its cache."""
        row, drawn = self._batch[slot], self._batch.drawn(slot, self.engine.limit - self._ahead)
        return row.cut(row.whole(drawn), self.window_length - self._ahead)

    def _missing(self, slot: int, staged: Staged) -> int:
        """How many events the row has drawn that its next window lacks."""
        row, window = staged.row, staged.window
        drawn = int(self._batch.lengths[slot]) - self.engine.decoder.lag - len(row.window.given)
        return len(row.events) + drawn - window.offset - len(window.given)

    def _controls(self, row: Progress, window: Window):
        return row.controls(window, self.engine.limit, self.engine.decoder.lag)

    # Event steps

    def _step(self, max_steps: int) -> None:
        active, lengths = self._batch.active, self._batch.lengths
        if active:
            if any(self._batch[slot].is_open for slot in active):
                max_steps = 1  # each of its events is for the outbox
            if self.interleaved:
                mark = self.engine.limit - self._ahead
                until_mark = [mark - lengths[slot] for slot in active if lengths[slot] < mark]
                is_prefilling = self.is_staging or (self._waiting and self._batch.num_free)
                max_steps = 1 if is_prefilling else int(min([max_steps, *until_mark]))
            stopping = 1 if self.interleaved else max(self._wanted() - self._staging.waiting, 1)
            # With one step the host does not know yet which rows the step before has stopped.
            self._batch.step(max_steps, 1 if max_steps == 1 else len(active) - stopping + 1)
        # What a single step brought is read after the next one has begun, so that neither host nor device waits.
        self._batch.read_all_but(1 if active and max_steps == 1 else 0)
        self.totals.row_steps = self._batch.row_steps

    def _finish(self) -> None:
        for slot, row in self._batch:
            length, is_done = int(self._batch.lengths[slot]), bool(self._batch.done[slot])
            if row.is_parked:
                continue
            if is_done or length >= row.most(row.window, self.engine.decoder.lag):
                self._staging.remove(row)
                if row.is_open:
                    row.is_parked = True
                    continue
                self._ended.append((row, self._batch.fetch(slot, length), is_done))
                self._batch.remove(slot)
            elif self._batch.reaches(slot, self.engine.capacity - 1) and self.engine.capacity <= self.engine.limit:
                self.engine.grow()

    # Sessions

    def open(self, request: Request) -> Progress:
        """A row that stays: it waits when it reaches a bound of its limits. Raises UserError if every row is taken.

        A row that is on its way to a new window gets there first, and the other rows go on meanwhile.
        """
        if self._batch.num_free <= self._staging.joining or self._waiting:
            raise UserError(f"engine.rows is {self.engine.rows} and all are taken; close a session, or give more rows")
        row = Progress(request, self.engine.tokenizer, self.window_length, is_open=True)
        self._waiting.append(row)
        self._settle(row, others_wait=not self.interleaved)
        return row

    def _settle(self, row: Progress, others_wait: bool) -> None:
        """Prefills until the row is in the batch."""
        while row not in self._batch:
            if not self._prefill() or not (others_wait or row in self._batch):
                self.read_queues()
                self._step(1)
                self._finish()

    def close(self, row: Progress) -> None:
        """Frees the row of a session."""
        self._staging.remove(row)
        self._free(self._batch.slot_of(row))

    def _free(self, slot: int) -> None:
        self.engine.release(slot)
        self._batch.remove(slot)

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
        slot, batch = self._batch.slot_of(row), self._batch
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
        if kept < batch.lengths[slot]:
            batch.lengths[slot] = max(min(kept, known - 1), 0)  # without a queue the last event is read again
        batch.known[slot], batch.done[slot] = known, False
        row.keys = keys

    def read_queues(self) -> bool:
        """Reads what sessions were given, several rows at once, but for the last few events. Returns whether there was any.

        A row's whole queue is read before the next event step: how it is cut into chunks must not depend on other rows.
        """
        offered, lengths = [slot for slot, row in self._batch if row.keys is not None], self._batch.lengths
        if not offered and not self._queued():
            return False
        self._batch.read_all_but(0)  # else a step that began before would bring lengths of before
        for first in range(0, len(offered), self.engine.group):
            self._offer(offered[first : first + self.engine.group])
        while slots := self._queued():
            for first in range(0, len(slots), self.engine.group):
                self.engine.prefill(*slots[first : first + self.engine.group])
            lengths[slots] = np.minimum(lengths[slots] + self.engine.chunk, self._batch.known[slots])
        return True

    def _offer(self, slots: list[int]) -> None:
        """The rows read of what they are offered as much as they come to."""
        batch = self._batch
        while batch.lengths[slots].max() + OFFER > self.engine.capacity:
            self.engine.grow()
        keys = np.zeros((len(slots), OFFER), np.int32)
        for place, slot in enumerate(slots):
            if (own := batch[slot].keys) is not None:
                keys[place, : len(own)] = own
        for slot, count in zip(slots, self.engine.offer(slots, keys), strict=True):
            batch[slot].keys, batch[slot].read = None, int(count)
            batch.lengths[slot] += count
            batch.known[slot] = batch.lengths[slot]

    def _queued(self) -> list[int]:
        """The rows with a queue that is worth a prefill."""
        lengths, known = self._batch.lengths, self._batch.known
        fits = lambda slot: lengths[slot] + self.engine.chunk <= self.engine.capacity
        return [slot for slot, _ in self._batch if known[slot] - lengths[slot] > SHORT and fits(slot)]

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
        self._stage(0, Staged(row, row.window, None, True))
        self._free(slot)
        self._settle(row, others_wait=True)  # else its player would wait twice as long
