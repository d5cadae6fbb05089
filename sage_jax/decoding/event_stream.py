"""EventStream: the events of one stream so far, to which notes, changes and drawn events are added."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.errors import UserError
from sage_jax.growing_array import GrowingArray
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.incremental import DecodedEvent, event_decoder, event_encoder
from sage_jax.tokenizers.note_events import INSTRUMENT, PITCH, REST

Change = tuple[int, float | tuple[int, int]]  # tick, and quarters per minute or (numerator, denominator)


class EventStream:
    """Events of NoteEvents from the head on, with a clock that knows the place of each.

    opening: number of events of the head. Raises UserError for a tempo or meter that the vocabulary lacks, and for a tokenizer
    that can't code events one by one.
    """

    def __init__(self, tokenizer: Tokenizer, qpm: float, meter: tuple[int, int]):
        self._encoder = event_encoder(tokenizer)
        self.tokenizer = self._encoder.tokenizer
        self.clock: EventClock = self._encoder.clock
        self._decoder = event_decoder(tokenizer, self.clock)
        if meter not in self.tokenizer.meters:
            raise UserError(f"meter is {meter!r}, which the vocabulary lacks; give a shorter bar or a simpler beat")
        opening = tokenizer.quantize(Piece.from_notes([], tokenizer.grid.ticks_per_quarter, qpm, meter))
        events = np.asarray(tokenizer.encode(opening)[:-1], np.int16)
        self.opening = len(events)
        self._events = GrowingArray(np.int16, events.shape[1:])
        self.add(events)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> np.ndarray:
        """All events so far, int16 [N, A]: a view, see `GrowingArray.rows`."""
        return self._events.rows

    def before(self, tick: int) -> int:
        """The number of events before a tick, without rests at their end; those of the head in any case."""
        return max(self.clock.events_before(tick), self.opening)

    def without_rests(self) -> int:
        """The number of events without the rests at their end."""
        keep = len(self)
        while self.events[keep - 1, INSTRUMENT] == REST:
            keep -= 1
        return keep

    def put(self, keep: int, notes: np.ndarray, changes: Sequence[Change] = ()) -> np.ndarray:
        """Keeps `keep` events, and adds those of the notes, NOTE [n], and of the changes; returns these, int16 [m, A], a view.

        The vocabulary rounds durations, velocities and tempos. A change to what is in force adds nothing. Raises UserError for
        a note that sorts before the last event that is kept; the stream then stays as it is.
        """
        rest = self.tokenizer.quantize(Piece.from_notes(notes, self.tokenizer.ticks_per_quarter)).notes
        with self.restored_on_error(keep):
            self.truncate(keep)
            for tick, value in sorted(changes, key=lambda change: (change[0], not isinstance(change[1], tuple))):
                self._events.extend(self._encoder.push(rest[rest["onset"] < tick]))
                rest = rest[rest["onset"] >= tick]
                state = self.clock.state
                if isinstance(value, tuple):
                    in_force = self.tokenizer.head_after(self.events)[1, PITCH]
                    if self.tokenizer.meter_id(value) != in_force or (tick - state.bar_start) % state.bar_ticks:
                        self._events.extend(self._encoder.push_meter(tick, *value))
                elif (nearest := self.tokenizer.nearest_tempo(value)) != state.qpm:
                    self._events.extend(self._encoder.push_tempo(tick, nearest))
            self._events.extend(self._encoder.push(rest))
        return self.events[keep:]

    @contextlib.contextmanager
    def restored_on_error(self, keep: int) -> Iterator[None]:
        """If the block fails, the stream is what it was before; the block keeps its first `keep` events."""
        old = self.events[keep:].copy()
        try:
            yield
        except Exception:
            self.truncate(keep)
            self.add(old)
            raise

    def draw(self, event: np.ndarray) -> DecodedEvent:
        """Adds an event that a model has drawn, int [A]; returns what it means."""
        decoded = self._decoder.push(event)
        self._events.append(event)
        return decoded

    def add(self, events: np.ndarray) -> None:
        """Adds events of the stream, int [n, A]."""
        for event in events.tolist():
            self.clock.count(event)
        self._events.extend(events)

    def truncate(self, keep: int) -> None:
        """Drops all but the first `keep` events."""
        self.clock.rollback(keep)
        self._events.truncate(keep)
