"""Carries out assignments with an engine: the model draws its events, and is given the others when it is to know them."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import OFFER, Engine
from sage_jax.decoding.request import Progress, Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.totals import Totals
from sage_jax.errors import UserError
from sage_jax.music.notes import NOTE
from sage_jax.tasks.assignment import Assignment, AssignmentWindow, Push
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.role_events import RoleEvents

MARGIN = 0.125  # the share of a context that a full window leaves free, for what is given last
WINDOWS = 1 << 16  # the number of a window's request is that of the take plus a multiple of this


@dataclasses.dataclass(frozen=True)
class Performed:
    """What a model wrote for an assignment.

    notes: NOTE [n], in ticks of the piece; they end at the end of the last bar. events: own events that were drawn,
    rests included. is_cut: whether it reached max_events before the last bar.
    """

    notes: np.ndarray
    events: int
    is_cut: bool


class Performance:
    """One assignment in progress, on the host. `begin` and `go_on` say what its row reads next and may draw until when."""

    def __init__(self, assignment: Assignment, sampling: SamplingConfig, seed: int, number: int, limit: int, max_events: int):
        self.assignment, self._limit, self._max_events = assignment, limit, max_events
        self._full = int((1 - MARGIN) * limit)  # events of a full window
        self._sampling, self._seed, self._number = sampling, seed, number
        self._tokenizer: RoleEvents = assignment.tokenizer
        self._written: list[tuple[int, ...]] = []  # NOTE rows, in ticks of the piece
        self.drawn = 0
        self.keys: np.ndarray | None = None
        self._offered: list[Push] = []
        self._windows = 0
        self._open_window(assignment.start)

    def _open_window(self, now: int) -> None:
        """now: tick of the piece from which the model goes on."""
        self._window: AssignmentWindow = self.assignment.window(self.written, now, self._limit)
        self._pushes = collections.deque(self._window.pushes)
        self.events = self._window.prompt
        self._clock = EventClock(self._tokenizer)
        own, _ = self._tokenizer.split(self.events)
        for event in own.tolist():
            self._clock.count(event)
        self._first_tick = self._window.start
        self._windows += 1
        self._opened_at = now

    @property
    def written(self) -> np.ndarray:
        """The model's notes so far, NOTE [n], as they were drawn."""
        return np.array(self._written, NOTE)

    @property
    def request(self) -> Request:
        """The present window with the limits until the next push that is not offered."""
        later = self._pushes[len(self._offered)].key if len(self._pushes) > len(self._offered) else self._window.stop
        limits = Limits(
            first_tick=self._offered[-1].key if self._offered else self._first_tick,
            stop_tick=later,
            allow_eos=False,
            allow_changes=False,
            programs=self.assignment.own,
        )
        number = self._number + self._windows * WINDOWS
        prompt = self._window.prompt
        most = self._full - len(prompt)
        return Request(prompt, limits, self._sampling, max(most, 1), self._seed, number)

    def add(self, event: np.ndarray) -> None:
        """An event that the row drew, int [5]."""
        state = self._clock.count(event.tolist())
        self.events = np.concatenate([self.events, event[None].astype(np.int16)])
        self.drawn += 1
        if event[ev.INSTRUMENT] >= ev.FIRST_PROGRAM:
            note = self._tokenizer.notes_of(event[None].astype(np.int64), np.array([state.tick + self._window.offset]))
            self._written.append(tuple(note[0].tolist()))

    def go_on(self, most: int = 0) -> np.ndarray | None:
        """What the row reads where it has stopped, int16 [n, 5]; None if the assignment is done.

        If the window is full, the next one begins, and its prompt takes the place of all events: `is_new_window` says so.
        most: if this push has fewer events, those after it are offered as well. Then `keys` has the tick of each event, int
        [n], and `accept` must be called with the number that the row reads before it draws one of its own.
        """
        self.is_new_window, self.keys, self._offered = False, None, []
        if self.drawn >= self._max_events:
            return None
        is_full = len(self.events) + (len(self._pushes[0].given) if self._pushes else 0) >= self._full
        now = max(self._clock.state.tick + 1, self._first_tick)
        if is_full and now < self._window.stop:
            if now + self._window.offset == self._opened_at:
                raise UserError("more notes are given at one time than the model's context holds; give fewer tracks")
            self._open_window(now + self._window.offset)
            self.is_new_window = True
            return self.events
        if not self._pushes:
            return None
        push = self._pushes.popleft()
        given = self._pushed(push)
        self._first_tick = max(self._first_tick, push.key)
        space = min(most - len(given), self._full - len(self.events) - len(given))
        if len(self.events) + most <= self._limit:
            for later in self._pushes:
                space -= len(later.given)
                if space < 0 or later.changes:  # a change counts from the last own event
                    break
                self._offered.append(later)
        self.events = np.concatenate([self.events, given])
        if self._offered:
            offered = [given, *(later.given for later in self._offered)]
            self.keys = np.repeat([push.key, *(later.key for later in self._offered)], [len(each) for each in offered])
            given = np.concatenate(offered)
        return given

    def accept(self, count: int) -> None:
        """The row has read `count` events of the offer: whole pushes."""
        assert self.keys is not None
        for push in self._offered:
            if push.key > self.keys[count - 1]:
                break
            self._pushes.popleft()
            self.events = np.concatenate([self.events, push.given])
            self._first_tick = push.key
        self._offered = []

    def _pushed(self, push: Push) -> np.ndarray:
        """The events of a push: the changes count from the last own event, which may be a rest in the same bar."""
        changes = np.full((len(push.changes), ev.NUM_ATTRIBUTES), ev.NONE, np.int16)
        for change, (tick, kind, pitch) in zip(changes, push.changes, strict=True):
            state = self._clock.state
            bars, position = divmod(tick - state.bar_start, state.bar_ticks)
            change[: ev.DURATION] = ev.FIRST + bars * self._tokenizer.max_position + position, kind, pitch
            self._clock.count(change.tolist())
        return np.concatenate([push.given, changes])

    @property
    def performed(self) -> Performed:
        """The result so far."""
        notes = self.written
        notes["duration"] = np.minimum(notes["duration"], self.assignment.stop - notes["onset"])
        return Performed(notes, self.drawn, self.drawn >= self._max_events)


def perform(
    engine: Engine,
    assignments: Sequence[Assignment],
    *,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    max_events: int = 1 << 20,
    totals: Totals | None = None,
) -> list[Performed]:
    """Carries out `assignments`, as many at once as the engine has rows; what one becomes does not depend on the others.

    max_events: the most own events of each. totals: what the scheduler has done is added to it.
    """
    scheduler = Scheduler(engine, window_length=engine.limit)
    waiting = collections.deque(enumerate(assignments))
    found: dict[int, Performed] = {}
    playing: dict[int, tuple[Performance, Progress]] = {}
    while waiting or playing:
        while waiting and len(playing) < engine.rows:
            number, assignment = waiting.popleft()
            performance = Performance(assignment, sampling, seed, number, engine.limit, max_events)
            playing[number] = performance, scheduler.open(performance.request)
        scheduler.turn(max_steps=1)
        for number, (performance, row) in list(playing.items()):
            if row.read is not None:
                performance.accept(row.read)
                row.read = None
            while row.outbox:
                performance.add(row.outbox.popleft())
            if row.is_parked and not _go_on(scheduler, performance, row):
                scheduler.close(row)
                found[number] = performance.performed
                del playing[number]
    engine.reset()
    if totals is not None:
        for field in dataclasses.fields(Totals):
            setattr(totals, field.name, getattr(totals, field.name) + getattr(scheduler.totals, field.name))
    return [found[number] for number in range(len(assignments))]


def _go_on(scheduler: Scheduler, performance: Performance, row: Progress) -> bool:
    """Gives the row what it reads next; whether there is anything."""
    before = len(performance.events)
    given = performance.go_on(OFFER)
    if given is None:
        return False
    nothing = given[:0]
    if performance.is_new_window:
        scheduler.revise(row, 0, nothing, performance.request, history=given)
    else:
        history = performance.events[:before]
        scheduler.revise(row, before, given, performance.request, history=history, keys=performance.keys)
    return True
