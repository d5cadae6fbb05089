"""Music that is written with a model event by event: streams, and sessions in which a player and the model take turns."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.event_stream import Change, EventStream
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import UNBOUNDED, Scheduler
from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, Piece, note_array
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.incremental import DecodedEvent, Notes, event_decoder


def stream(engine: Engine, request: Request) -> Iterator[DecodedEvent]:
    """The events that continue the request's prompt, one by one as they are drawn; ticks and seconds count from its start.

    Raises UserError for a tokenizer without an incremental form. The engine should be for this stream alone.
    """
    decoder = event_decoder(engine.tokenizer)
    for event in request.events:
        decoder.push(event)
    scheduler = Scheduler(engine, interleaved=True)
    row = scheduler.submit(request)
    try:
        while scheduler.busy:
            scheduler.turn(max_steps=1)
            while row.outbox:
                yield decoder.push(row.outbox.popleft())
    finally:
        engine.reset()


class Session:
    """A piece that a player and the model write together, in ticks of the model's grid.

    `push` adds notes, `draw` lets the model go on, `rollback` takes back what comes from a tick on. `close` frees the row; a
    `with` block does so. Several sessions can share a scheduler, one call at a time. Each error leaves the session usable.

    clock: where the piece has come to, with the seconds of every tick.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        sampling: SamplingConfig = SamplingConfig(),
        programs: Sequence[int | tuple[int, int]] | None = None,
        qpm: float = DEFAULT_QPM,
        meter: tuple[int, int] = DEFAULT_METER,
        seed: int = 0,
        allow_changes: bool = True,
        reads_at_once: bool = True,
    ):
        """programs: what the model may play, as in Limits. allow_changes: whether it may change the tempo and the meter.
        reads_at_once: whether the model reads notes when they are pushed. Else it reads them in the scheduler's next turn,
        together with those of other sessions, which takes less time for each. Raises UserError if all rows are taken, and for a
        program, tempo or meter that the vocabulary lacks."""
        self._stream = EventStream(scheduler.engine.tokenizer, qpm, meter)
        self.clock: EventClock = self._stream.clock
        self._scheduler, self._reads_at_once = scheduler, reads_at_once
        # The row waits where nothing is to be drawn.
        self._limits = Limits(allow_eos=False, programs=programs, stop_tick=0, allow_changes=allow_changes)
        self._request = Request(self.events, self._limits, sampling, UNBOUNDED // 2, seed)
        self._row = scheduler.open(self._request)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @property
    def events(self) -> np.ndarray:
        """All events so far, int16 [N, A]."""
        return self._stream.events.copy()

    @property
    def piece(self) -> Piece:
        """The piece so far."""
        return self._stream.tokenizer.decode(self.events)

    @property
    def tick(self) -> int:
        """The tick of the last event."""
        return self.clock.state.tick

    def push(self, notes: Notes) -> None:
        """Adds notes, as for `note_array`; the vocabulary rounds durations and velocities.

        They are read now, unless `reads_at_once` is off, so that the next `draw` begins at once. Raises UserError for a note
        that sorts before the last event; roll back to its tick first.
        """
        rows = note_array(notes)
        if len(rows):
            self._push(self._stream.without_rests(), rows)  # those that the notes need come with them

    def replace(
        self,
        start: int,
        notes: Notes,
        tempos: Sequence[tuple[int, float]] = (),
        meters: Sequence[tuple[int, tuple[int, int]]] = (),
    ) -> None:
        """Takes back every event at the tick `start` or later and adds `notes` as `push` does, at the cost of one of the two.

        tempos, meters: changes as (tick, quarters per minute) and (tick, meter), from `start` on. The vocabulary rounds tempos.
        Raises UserError as `rollback` and `push`; the session then stays as it is.
        """
        if start < 0:
            raise UserError(f"start is {start}; give a tick of at least 0")
        keep, rows = self._stream.before(start), note_array(notes)
        changes = [*meters, *tempos]
        if keep < len(self._stream) or changes or len(rows):
            self._push(keep, rows, changes, is_rollback=keep < len(self._stream))

    def _push(self, keep: int, rows: np.ndarray, changes: Sequence[Change] = (), is_rollback: bool = False) -> None:
        """Makes the session its first `keep` events, and then the notes `rows` [N], NOTE, and the `changes`."""
        with self._stream.restored_on_error(keep):
            pushed = self._stream.put(keep, rows, changes)
            self._revise(self._stream.events[:keep], pushed, self._limits, is_rollback)

    def draw(
        self,
        *,
        until: int | None = None,
        until_tick: int | None = None,
        not_before: int | None = None,
        begin_before: int | None = None,
        programs: Sequence[int | tuple[int, int]] | None = None,
        number: int = 0,
    ) -> Iterator[DecodedEvent]:
        """The model's next events, one by one, up to the beginning of the bar `until` or the tick `until_tick`.

        until: number of a bar, from 0. not_before: the first tick at which an event may be; None for that of the last event.
        begin_before: the first event from not_before on is before this tick, unless one is at not_before or later already.
        programs: those that may play in this draw; None for the session's. number: draws of another number differ.
        What is not taken from the iterator has not been drawn. Raises UserError without a bound, for one in the past, and for
        contradictory ones.
        """
        if (until is None) == (until_tick is None):
            raise UserError("draw needs one bound: until, a bar, or until_tick")
        state = self.clock.state
        if (until is not None and until <= state.bar) or (until_tick is not None and until_tick <= state.tick):
            raise UserError(
                f"until is {until if until is not None else until_tick}, and the piece has come to bar {state.bar}, "
                f"tick {state.tick}; give a later bound, or roll back first"
            )
        end = until_tick
        if until is not None:  # if no meter changes before
            end = state.bar_start + (until - state.bar) * state.bar_ticks
        if not_before is not None and end is not None and not_before >= end:
            raise UserError(f"not_before is {not_before}, and the draw ends before tick {end}; give an earlier not_before")
        limits = dataclasses.replace(
            self._limits, stop_bar=until, stop_tick=until_tick, first_tick=not_before or 0, begin_before=begin_before
        )
        if programs is not None:
            limits = dataclasses.replace(limits, programs=programs)
        # The row goes on at once: with several sessions, before the first of them waits for an event step.
        self._request = dataclasses.replace(self._request, number=number)
        events = self._stream.events
        self._revise(events, events[:0], limits)
        return self._taken(self._row.request)

    def _taken(self, request: Request) -> Iterator[DecodedEvent]:
        """The events that the row brings as long as its request is `request`."""
        row = self._row
        while not (row.is_parked and not row.outbox):
            if row.request is not request:
                raise UserError("the session has changed since this draw began; call draw again")
            while row.outbox:
                yield self._stream.draw(row.outbox.popleft())
                if row.request is not request:
                    break
            else:
                self._scheduler.turn(max_steps=1)

    def rollback(self, to: int) -> None:
        """Takes back every event at the tick `to` or later. Raises UserError if that is before what the model still reads."""
        if to < 0:
            raise UserError(f"to is {to}; give a tick of at least 0")
        keep, events = self._stream.before(to), self._stream.events
        if keep == len(events):
            return
        try:
            self._revise(events[:keep], events[:0], self._limits, is_rollback=True)
        except UserError as error:
            raise UserError(f"to is tick {to}: {error}") from error
        self._stream.truncate(keep)

    def close(self) -> None:
        """Frees the session's row of the engine."""
        self._scheduler.close(self._row)

    def _revise(self, kept: np.ndarray, pushed: np.ndarray, limits: Limits, is_rollback: bool = False) -> None:
        """Makes the row the events `kept` and then those that were pushed, [N, A] each."""
        request = dataclasses.replace(self._request, limits=limits)
        # A draw that was left may have gone on, so that its row's window has moved: the events are then read again.
        history = None if is_rollback else kept
        self._scheduler.revise(self._row, len(kept), pushed, request, history)
        if self._reads_at_once:
            self._scheduler.read_queues()
