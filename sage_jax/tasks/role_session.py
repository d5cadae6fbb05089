"""RoleSession: a player and a model with roles play at once. What the player did comes at the end of the sequence."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.event_stream import EventStream
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, Piece, note_array
from sage_jax.tasks.role_window import NO_LIMIT, RoleWindow
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.incremental import DecodedEvent, Notes
from sage_jax.tokenizers.leads import LATE, Lead
from sage_jax.tokenizers.role_events import RoleEvents

FULL = 0.875  # the part of a context at which the session goes on in a new window
ANEW = 64  # new events of which a whole window is read anew: in a staging area they take less time
WINDOWS = 1 << 16  # the number of a draw, and a multiple of this for each window: no window repeats the noise of another
IDLE = Limits(allow_eos=False, stop_tick=0, allow_changes=False)


def late_lead(quarters: float) -> Lead:
    """The longest lead of LATE that is at most `quarters`, and the shortest one for less."""
    return next((lead for lead in reversed(LATE) if (lead.quarters_late or 0) <= quarters), LATE[0])


class RoleSession:
    """A player's notes, which the model is given `lead` late, and the model's own. In ticks of the model's grid.

    It has what live play needs of a `Session`. There the player's notes lie before those that the model has written for the
    time of its lead, which are then read again. Here they follow them, as in training. A silent bar has a rest in its stream:
    the model's when it draws one, the player's when the bar is over.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        lead: Lead,
        read_tick: Callable[[], int],
        *,
        programs: Sequence[int] = (),
        sampling: SamplingConfig = SamplingConfig(),
        qpm: float = DEFAULT_QPM,
        meter: tuple[int, int] = DEFAULT_METER,
        seed: int = 0,
    ):
        """lead: one of LATE. read_tick: the tick up to which the player's notes are known now. programs: those of the first
        draw, so that it reads no other window.

        Raises UserError if all rows are taken, for a model without roles, and for a tempo or meter that its vocabulary lacks.
        """
        tokenizer = scheduler.engine.tokenizer
        if not isinstance(tokenizer, RoleEvents):
            raise UserError("the model has no roles; take one that was trained with config.representation.name=roles")
        if not lead.quarters_late:
            raise UserError(f"lead is {lead.name}; what a player does is known late, choose one of {[e.name for e in LATE]}")
        self._tokenizer, self._scheduler, self._lead, self._read_tick = tokenizer, scheduler, lead, read_tick
        self._late = lead.late_ticks(tokenizer.ticks_per_quarter)
        self._own, self._given = EventStream(tokenizer, qpm, meter), EventStream(tokenizer, qpm, meter)
        # Bars before these that have nothing are silent, in the model's stream and in the player's. So are those that the model
        # drew a rest for.
        self._over = self._given_over = 0
        self._silent: set[int] = set()
        self._tracks = tuple((program, 0) for program in sorted(set(programs)))
        self._full = int(FULL * scheduler.engine.limit)
        self._bar = self._windows = 0  # the first bar of the window, and the number of windows before it
        self._window = self._cut(NO_LIMIT, self._full - 1)
        events = self._window.events
        self._number = 0
        self._request = Request(events, IDLE, sampling, self._full - len(events), seed)
        self._row = scheduler.open(self._request)

    @property
    def tick(self) -> int:
        """The tick of the model's last event."""
        return self._own.clock.state.tick

    @property
    def window(self) -> RoleWindow:
        """What the model has read and drawn in the present window."""
        return self._window

    @property
    def piece(self) -> Piece:
        """The notes of both so far, with the tempos and meters. A note of the player may have a length that was provisional."""
        own, given = (self._tokenizer.decode(each.events) for each in (self._own, self._given))
        return Piece(np.concatenate([own.notes, given.notes]), own.tempos, own.meters, own.ticks_per_quarter)

    def replace(
        self,
        start: int,
        notes: Notes,
        tempos: Sequence[tuple[int, float]] = (),
        meters: Sequence[tuple[int, tuple[int, int]]] = (),
        own: Sequence[bool] = (),
    ) -> None:
        """Makes `notes` those of both from the tick `start` on, as for `note_array`. own: which of them are the model's.

        tempos, meters: changes as (tick, quarters per minute) and (tick, meter), from `start` on. What is new is read in the
        scheduler's next turn, and a whole window at once. Raises UserError for a negative start.
        """
        if start < 0:
            raise UserError(f"start is {start}; give a tick of at least 0")
        rows, is_own = note_array(notes), np.array(own, bool).reshape(-1)
        mine = rows[is_own].copy()
        self._given.put(self._given.before(start), rows[~is_own], list(meters))
        mine["track"] = [self._track_of(program) for program in mine["program"].tolist()]
        self._own.put(self._own.before(start), mine, [*meters, *tempos])
        for tick, _ in meters:  # bars were counted without it
            self._forget_rests(tick)
            self._given_over = min(self._given_over, self._given.clock.bar_of(tick - 1) + 1)
        self._over = max(self._over, self._own.clock.bar_of(self._read_tick()))
        self._add_rests()
        self._read(IDLE)

    def rollback(self, to: int) -> None:
        """Takes back the model's events at the tick `to` or later."""
        self._own.truncate(self._own.before(to))
        self._forget_rests(to)
        self._add_rests()
        self._read(IDLE)

    def draw(
        self,
        *,
        until_tick: int,
        not_before: int,
        programs: Sequence[int],
        begin_before: int | None = None,
        number: int = 0,
    ) -> Iterator[DecodedEvent]:
        """The model's next events in the ticks [not_before, until_tick), one by one; parameters as of `Session.draw`.

        programs: those that the model may play, in a track of each.
        """
        self._tracks = tuple((program, self._track_of(program)) for program in sorted(set(programs)))
        self._number = number
        self._forget_rests(not_before)
        while self._own.events[-1, ev.INSTRUMENT] == ev.REST and self.tick >= not_before:
            self._own.truncate(len(self._own) - 1)
        self._over = max(self._over, self._own.clock.bar_of(not_before))
        known = min(self._read_tick(), not_before - self._late)
        self._given_over = max(self._given_over, self._given.clock.bar_of(known))
        self._add_rests()
        limits = dataclasses.replace(
            IDLE, first_tick=not_before, stop_tick=until_tick, begin_before=begin_before, programs=self._tracks
        )
        self._read(limits)
        return self._drawn(limits, self._row.request)

    def close(self) -> None:
        """Frees the session's row of the engine."""
        self._scheduler.close(self._row)

    # The two streams

    def _track_of(self, program: int) -> int:
        """The model's track of a program: the second one where the player has the first."""
        instruments = self._given.events[self._given.opening :, ev.INSTRUMENT]
        is_shared = int(self._tokenizer.instrument_of(program, 0)) in instruments
        return int(is_shared and self._tokenizer.tracks_per_program > 1)

    def _forget_rests(self, tick: int) -> None:
        """From this tick on the model decides anew in which bars it plays."""
        first = self._own.clock.bar_of(tick - 1) + 1
        self._over = min(self._over, first)
        self._silent = {bar for bar in self._silent if self._over <= bar < first}

    def _add_rests(self) -> None:
        """Adds a rest for each silent bar at the end of a stream."""
        for stream, over, silent in ((self._own, self._over, self._silent), (self._given, self._given_over, ())):
            while (bar := stream.clock.state.bar + 1) < over or bar in silent:
                stream.add(np.array([self._tokenizer.rest], np.int16))

    # Draws

    def _drawn(self, limits: Limits, request: Request) -> Iterator[DecodedEvent]:
        """The events that the row brings as long as its request is `request`, and across windows."""
        row = self._row
        while True:
            if row.request is not request:
                raise UserError("the session has changed since this draw began; call draw again")
            if row.outbox:
                event = row.outbox.popleft()
                decoded = self._own.draw(event)
                if event[ev.INSTRUMENT] == ev.REST:
                    self._silent.add(decoded.bar)
                self._window = self._window.extended(event)
                yield decoded
            elif not row.is_parked:
                self._scheduler.turn(max_steps=1)
            else:
                later = self._window.later
                if len(self._window.events) < self._full:
                    if later is None or later >= (limits.stop_tick or NO_LIMIT):
                        return
                    limits = dataclasses.replace(limits, first_tick=max(limits.first_tick, later))
                self._read(limits)
                request = row.request

    def _read(self, limits: Limits) -> None:
        """Makes the row's events those of the streams, and goes on with `limits`, in ticks of the session.

        With IDLE it waits. Else it knows what it is to know at the first tick, and draws to the end or to the next such place.
        """
        before = self._window
        is_idle = limits is IDLE
        until = NO_LIMIT if is_idle else max(limits.first_tick, self.tick)
        self._window = self._cut(until, self._full - 1)
        keep = self._window.common(before)
        if self._window.bar != before.bar or len(self._window.events) - keep > ANEW:
            keep, self._windows = 0, self._windows + 1
            self._window = self._cut(until, self._scheduler.window_length)  # the scheduler would cut a longer one
        events, offset, later = self._window.events, self._window.offset, self._window.later
        if not is_idle:
            stop, end = min(limits.stop_tick or NO_LIMIT, later or NO_LIMIT), limits.begin_before
            limits = dataclasses.replace(
                limits,
                first_tick=limits.first_tick - offset,
                stop_tick=stop - offset,
                begin_before=None if end is None or end <= limits.first_tick else end - offset,
            )
        self._request = dataclasses.replace(
            self._request,
            events=events,
            limits=limits,
            max_events=self._full - len(events),
            number=self._number + WINDOWS * self._windows,
        )
        new = events[keep:] if keep else events[:0]
        self._scheduler.revise(self._row, keep, new, self._request, events[:keep] if keep else events)

    def _cut(self, until: int, longest: int) -> RoleWindow:
        """The streams from the window's first bar on; if that is longer than `longest`, from a later one on."""
        tokenizer, last, length = self._tokenizer, self._own.clock.state.bar, self._scheduler.window_length
        instruments = {int(tokenizer.instrument_of(*track)) for track in self._tracks}
        cut = functools.partial(RoleWindow.of, self._own, self._given, self._lead, instruments, until=until)
        self._bar = min(self._bar, last)
        window = cut(bar=self._bar)
        if len(window.events) <= longest:
            return window
        space = length - window.heads
        bars = np.sort(np.concatenate([each.clock.states["bar"][-space - 1 :] for each in (self._own, self._given)]))
        self._bar = min(max(self._bar, int(bars[-space - 1]) + 1 if len(bars) > space else 0), last)
        window = cut(bar=self._bar)
        # A bar may have more.
        return window if len(window.events) <= length else cut(bar=self._bar, most=space // 2)
