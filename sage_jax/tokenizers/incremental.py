"""Events of NoteEvents one by one: what each of them means, and which ones a note or a change adds."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, check_notes, note_array
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.note_events import NoteEvents

# Onset, program, pitch, duration, velocity and, unless it is 0, the track.
Row = tuple[int, int, int, int, int] | tuple[int, int, int, int, int, int]
Notes = np.ndarray | np.void | Row | Sequence[Row]

Event = tuple[int, ...]  # NUM_ATTRIBUTES ids

Kind = Literal["begin", "end", "padding", "rest", "meter", "tempo", "note"]
KINDS: dict[int, Kind] = {ev.REST: "rest", ev.METER_CHANGE: "meter", ev.TEMPO_CHANGE: "tempo"}  # by instrument id
SPECIAL: dict[int, Kind] = {ev.BOS: "begin", ev.EOS: "end"}  # by onset id


class TimedNote(NamedTuple):
    """A note in ticks and in seconds. The first six fields are those of NOTE.

    start, end: seconds from the start of the piece. `end` assumes that the tempo at the onset lasts. If a later event changes
    the tempo inside the note, `EventClock.seconds(onset + duration)` gives the new end.
    """

    onset: int
    program: int
    pitch: int
    duration: int
    velocity: int
    track: int
    start: float
    end: float


class DecodedEvent(NamedTuple):
    """What an event means. Fields that its kind doesn't have are None.

    kind: "begin" for BOS, "end" for EOS, "padding" for PAD, otherwise the content.
    tick, seconds: the time of the event from the start of the piece. A rest has that of the bar that it reaches, EOS and PAD
      that of the event before them.
    bar: the number of the bar of `tick`, from 0. A meter change is in the bar that it begins.
    note: the note. qpm: the new tempo in quarters per minute. meter: the new (numerator, denominator).
    """

    kind: Kind
    tick: int
    seconds: float
    bar: int
    note: TimedNote | None = None
    qpm: float | None = None
    meter: tuple[int, int] | None = None


class _Coder:
    """A tokenizer and a clock. A decoder and an encoder with the same clock continue each other's events.

    Each event is then pushed to only one of the two. Raises ValueError for the clock of another tokenizer.
    """

    def __init__(self, tokenizer: NoteEvents, clock: EventClock | None = None):
        self.tokenizer = tokenizer
        self.clock = EventClock(tokenizer) if clock is None else clock
        if self.clock.tokenizer != tokenizer:
            raise ValueError("the clock counts the events of another tokenizer")

    def __len__(self) -> int:
        """The number of events so far, BOS, EOS and PAD included."""
        return len(self.clock)

    def rollback(self, events: int) -> None:
        """Goes back to the state after the first `events` events. Raises ValueError unless there are as many."""
        self.clock.rollback(events)

    def rollback_to(self, tick: int) -> int:
        """Drops the events from `tick` on, as `EventClock.rollback_to`; returns the number of events that remain."""
        return self.clock.rollback_to(tick)

    def copy(self) -> Self:
        """The same state with a clock of its own."""
        return type(self)(self.tokenizer, self.clock.copy())


class EventDecoder(_Coder):
    """Decodes events in order, one by one. Notes, changes and ticks are those of `NoteEvents.decode`."""

    def push(self, event: np.ndarray) -> DecodedEvent:
        """What the next event, int [5], means. Raises ValueError as `EventClock.advance`; the event is then not counted."""
        event = np.asarray(event, np.int64)
        state = self.clock.advance(event)
        onset, instrument, pitch, *_ = event.tolist()
        kind = SPECIAL.get(onset, "padding") if onset < ev.FIRST else _kind(instrument)
        bar = state.bar + state.position // state.bar_ticks
        decoded = DecodedEvent(kind, state.tick, self.clock.seconds(state.tick), bar)
        if kind == "meter":
            return decoded._replace(meter=self.tokenizer.meters[pitch - self.tokenizer.first_meter])
        if kind == "tempo":
            return decoded._replace(qpm=state.qpm)
        if kind == "note":
            row = self.tokenizer.notes_of(event[None], np.array([state.tick]))[0].tolist()
            note = TimedNote(*row, start=decoded.seconds, end=0.0)
            return decoded._replace(note=note._replace(end=self.clock.seconds(note.onset + note.duration)))
        return decoded


class EventEncoder(_Coder):
    """Encodes notes and changes in canonical order: by tick, and at one tick the meter, the tempo, notes by track and pitch.

    No event depends on later items, so a push returns all events of its items, with the rests before them. The first push also
    returns BOS. Where the items don't begin with a meter and a tempo at tick 0, it returns 4/4 and 120 quarters per minute.
    For the items of a quantized piece, all events and those of `finish` are `NoteEvents.encode(piece)`.

    Other events, such as a model's, are counted by `clock.advance` or by a decoder with the same clock. The encoder continues
    after them. A push raises UserError for an item that doesn't sort after the last event. It raises ValueError for a value
    that isn't in the vocabulary. In both cases no event is counted.
    """

    def push(self, notes: Notes) -> np.ndarray:
        """The events, int16 [n, 5], that `notes` add. notes: as for `note_array`."""
        rows = note_array(notes)
        check_notes(rows)
        return self._add(rows["onset"].tolist(), self.tokenizer.note_ids(rows).tolist())

    def push_tempo(self, tick: int, qpm: float) -> np.ndarray:
        """The events, int16 [n, 5], that a change at `tick` to `qpm` quarters per minute adds."""
        return self._add([tick], [[ev.TEMPO_CHANGE, self.tokenizer.tempo_id(qpm), ev.NONE, ev.NONE]])

    def push_meter(self, tick: int, numerator: int, denominator: int) -> np.ndarray:
        """The events, int16 [n, 5], that a change of meter at `tick` adds. It begins a bar and may cut the last one short."""
        return self._add([tick], [[ev.METER_CHANGE, self.tokenizer.meter_id((numerator, denominator)), ev.NONE, ev.NONE]])

    def finish(self) -> np.ndarray:
        """The events, int16 [n, 5], that end the piece: EOS, after the beginning if nothing was pushed.

        EOS doesn't depend on the end of the last note. Raises UserError after EOS and after a rest.
        """
        return self._counted(self._end)

    def _add(self, ticks: list[int], ids: list[list[int]]) -> np.ndarray:
        """The events of items at `ticks`; `ids` are those of all attributes but the onset."""
        return self._counted(lambda: [event for item in zip(ticks, ids, strict=True) for event in self._item(*item)])

    def _counted(self, make: Callable[[], list[Event]]) -> np.ndarray:
        """The events that `make` counts and returns; if it fails, none are counted."""
        before = len(self)
        try:
            events = make()
        except Exception:
            self.rollback(before)
            raise
        return np.array(events, np.int16).reshape(-1, ev.NUM_ATTRIBUTES)

    def _item(self, tick: int, ids: list[int]) -> list[Event]:
        if tick < 0:
            raise ValueError(f"tick {tick} lies before the start; ticks count from 0")
        key = (tick, ids[0], ids[1] if ids[0] >= ev.FIRST_PROGRAM else 0)
        self._check_order(key)
        events, state = self._beginning(key), self.clock.state
        rests, onset = map(int, self.tokenizer.onset_ids(*divmod(tick - state.bar_start, state.bar_ticks)))
        return events + [self._count(event) for event in [self.tokenizer.rest] * rests + [(onset, *ids)]]

    def _end(self) -> list[Event]:
        state = self.clock.state
        if state.ended:
            raise UserError("EOS is the last event already; roll back before you finish the piece again")
        if state.instrument == ev.REST:
            raise UserError(f"a rest is the last event; drop it with rollback_to({state.tick + 1}), then finish")
        return [*self._beginning((np.inf,)), self._count((ev.EOS,) * ev.NUM_ATTRIBUTES)]

    def _beginning(self, key: tuple) -> list[Event]:
        """BOS, the default meter and the default tempo, where they are missing before an item of `key`."""
        events = [] if len(self) else [self._count((ev.BOS,) * ev.NUM_ATTRIBUTES)]
        if self.clock.state.key >= (0, ev.TEMPO_CHANGE, 0):  # nothing is missing
            return events
        meter, tempo = self.tokenizer.meter_id(DEFAULT_METER), self.tokenizer.tempo_id(DEFAULT_QPM)
        for kind, value in ((ev.METER_CHANGE, meter), (ev.TEMPO_CHANGE, tempo)):
            if self.clock.state.key < (0, kind, 0) < key:
                events.append(self._count((ev.FIRST, kind, value, ev.NONE, ev.NONE)))
        return events

    def _count(self, event: Event) -> Event:
        self.clock.count(event)
        return event

    def _check_order(self, key: tuple[int, int, int]) -> None:
        """Raises UserError unless an item of `key` may come next."""
        state = self.clock.state
        if key > state.key and not state.ended:
            return
        tick, instrument, _ = key
        relation = "follows" if state.ended else "repeats" if key == state.key else "sorts before"
        last = "EOS" if state.ended else f"the {_kind(state.instrument)} at tick {state.tick}"
        raise UserError(
            f"the {_kind(instrument)} at tick {tick} {relation} the last event, {last}; call rollback_to({tick}), then push "
            "everything from that tick on in order: by tick, meter before tempo before notes, notes by program, track and pitch"
        )


def event_decoder(tokenizer: Tokenizer, clock: EventClock | None = None) -> EventDecoder:
    """A decoder for `tokenizer`. Raises UserError for all tokenizers but NoteEvents, which alone has one."""
    return EventDecoder(_incremental(tokenizer), clock)


def event_encoder(tokenizer: Tokenizer, clock: EventClock | None = None) -> EventEncoder:
    """An encoder for `tokenizer`. Raises UserError for all tokenizers but NoteEvents, which alone has one."""
    return EventEncoder(_incremental(tokenizer), clock)


def _incremental(tokenizer: Tokenizer) -> NoteEvents:
    if isinstance(tokenizer, NoteEvents):
        return tokenizer
    raise UserError(
        f"{type(tokenizer).__name__} can't code events one by one; use its encode and decode on whole pieces, "
        "or a model with representation.name=events"
    )


def _kind(instrument: int) -> Kind:
    return KINDS.get(instrument, "note")
