"""EventClock: where a sequence of events has come to, event by event, with a way back."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sage_jax.growing_array import GrowingArray
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, bar_ticks
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents


class ClockState(NamedTuple):
    """The place after an event.

    bar: the number of the current bar, from 0. bar_start: its tick. bar_ticks: its length in ticks.
    position: ticks from `bar_start` to the last event; in events that no grammar limits, it may exceed `bar_ticks`.
    instrument, pitch: ids of the last event, 0 before the first one. ended: whether EOS has come.
    qpm: the tempo in quarters per minute. tempo_tick, tempo_seconds: when it began.
    """

    bar: int
    bar_start: int
    bar_ticks: int
    position: int
    instrument: int
    pitch: int
    ended: bool
    qpm: float
    tempo_tick: int
    tempo_seconds: float

    @property
    def tick(self) -> int:
        """The tick of the last event; 0 before the first one."""
        return self.bar_start + self.position

    @property
    def key(self) -> tuple[int, int, int]:
        """(tick, instrument id, pitch id) of the last event; the next one of a canonical sequence has a higher key.

        A change has pitch 0, since a tick has only one of its kind. The bar that a rest reaches has no events: the key of a
        rest lies at the start of the bar after it.
        """
        if self.instrument < ev.REST:
            return -1, 0, 0
        if self.instrument == ev.REST:
            return self.bar_start + self.bar_ticks, 0, 0
        return self.tick, self.instrument, self.pitch if self.instrument >= ev.FIRST_PROGRAM else 0


# ClockState as a row: 41 bytes for each event of a session that may last for hours.
STATE = np.dtype(
    [
        ("bar", "i4"), ("bar_start", "i4"), ("bar_ticks", "i4"), ("position", "i4"), ("instrument", "i2"), ("pitch", "i2"),
        ("ended", "?"), ("qpm", "f8"), ("tempo_tick", "i4"), ("tempo_seconds", "f8"),
    ]
)  # fmt: skip


class EventClock:
    """Counts the events of a piece and knows the bar, the tick and the seconds of each.

    The clock keeps one small state for each event, so `rollback` costs no more than dropping them. Events may be in any order
    within a tick, as for `NoteEvents.decode`, but an event must not lie before the last one.
    """

    def __init__(self, tokenizer: NoteEvents):
        self.tokenizer = tokenizer
        length = int(bar_ticks(*DEFAULT_METER, tokenizer.ticks_per_quarter))
        self._state = ClockState(0, 0, length, 0, ev.PAD, 0, False, DEFAULT_QPM, 0, 0.0)
        self._states = GrowingArray(STATE)  # after each number of events
        self._states.append(self._state)

    def __len__(self) -> int:
        """The number of events so far, BOS, EOS and PAD included."""
        return len(self._states) - 1

    @property
    def state(self) -> ClockState:
        """The state after the last event."""
        return self._state

    @property
    def states(self) -> np.ndarray:
        """The state after each event so far, STATE [N]: a view, see `GrowingArray.rows`."""
        return self._states.rows[1:]

    def bar_of(self, tick: int) -> int:
        """The number of the bar of a tick, as far as the meters are known."""
        states = self.states
        state = states[max(int(np.searchsorted(states["bar_start"], tick, side="right")) - 1, 0)]
        return int(state["bar"] + (tick - state["bar_start"]) // state["bar_ticks"])

    def start_of(self, bar: int) -> int:
        """The tick at which a bar begins, as far as the meters are known."""
        states = self.states
        state = states[max(int(np.searchsorted(states["bar"], bar, side="right")) - 1, 0)]
        return int(state["bar_start"] + (bar - state["bar"]) * state["bar_ticks"])

    def advance(self, event: np.ndarray) -> ClockState:
        """The state after `event`, int [5], which is the next one. BOS and PAD change only the number of events.

        Raises ValueError, and stays where it is, for an event that `NoteEvents.decode` refuses, that lies before the last one
        or that follows EOS.
        """
        event = np.asarray(event, np.int64)
        if event.shape != (ev.NUM_ATTRIBUTES,):
            raise ValueError(f"an event has {ev.NUM_ATTRIBUTES} ids; this array has the shape {list(event.shape)}")
        if event[ev.ONSET] >= ev.FIRST:
            self.tokenizer.check(event[None])
        return self.count(event.tolist())

    def count(self, event: Sequence[int]) -> ClockState:
        """As `advance`, for ids that are known to be those of an event."""
        onset, instrument, pitch, *_ = event
        state = self._state
        if state.ended and onset != ev.PAD:
            raise ValueError("an event follows EOS; roll back to before EOS first")
        if onset < ev.FIRST:
            state = state._replace(ended=state.ended or onset == ev.EOS)
        else:
            state = self._moved(state, onset - ev.FIRST, instrument, pitch)
        self._states.append(state)
        self._state = state
        return state

    def _state_after(self, events: int) -> ClockState:
        return ClockState(*self._states.rows[events].item())

    def _moved(self, state: ClockState, onset: int, instrument: int, pitch: int) -> ClockState:
        bars, position = divmod(onset, self.tokenizer.max_position)
        bar, start = state.bar + bars, state.bar_start + bars * state.bar_ticks
        tick = start + position
        if tick < state.tick:
            raise ValueError(f"an event at tick {tick} follows one at tick {state.tick}; events must be in order of time")
        moved = state._replace(bar=bar, bar_start=start, position=position, instrument=instrument, pitch=pitch)
        if instrument == ev.METER_CHANGE:  # begins a bar; the bar that it cuts short counts as one
            bar += -(-position // state.bar_ticks)
            length = int(self.tokenizer.meter_ticks[pitch - self.tokenizer.first_meter])
            return moved._replace(bar=bar, bar_start=tick, position=0, bar_ticks=length)
        if instrument == ev.TEMPO_CHANGE:
            qpm = float(self.tokenizer.tempos[pitch - ev.FIRST_TEMPO])
            return moved._replace(qpm=qpm, tempo_tick=tick, tempo_seconds=self._seconds(state, tick))
        return moved

    def seconds(self, tick: int) -> float:
        """The seconds from the start to `tick`, through the tempo changes so far; the last tempo holds after them."""
        if tick >= self.state.tempo_tick:
            return self._seconds(self.state, tick)
        index = int(np.searchsorted(self._states.rows["tempo_tick"], tick, side="right")) - 1
        return self._seconds(self._state_after(max(index, 0)), tick)

    def _seconds(self, state: ClockState, tick: int) -> float:
        return state.tempo_seconds + (tick - state.tempo_tick) * (60.0 / (state.qpm * self.tokenizer.ticks_per_quarter))

    def rollback(self, events: int) -> None:
        """Goes back to the state after the first `events` events. Raises ValueError unless there are as many."""
        if not 0 <= events <= len(self):
            raise ValueError(f"the clock has {len(self)} events; it can't go back to {events}")
        self._states.truncate(events + 1)
        self._state = self._state_after(events)

    def rollback_to(self, tick: int) -> int:
        """Drops EOS, the events at `tick` or later and then the rests at the end; returns the number of events that remain.

        The events of a piece become those of its items before `tick`, with BOS. Raises ValueError for a negative tick.
        """
        kept = self.events_before(tick)
        self.rollback(kept)
        return kept

    def events_before(self, tick: int) -> int:
        """The number of events that `rollback_to` would leave. Raises ValueError for a negative tick."""
        if tick < 0:
            raise ValueError(f"tick {tick} lies before the start; ticks count from 0")
        kept = len(self)
        while (last := self._state_after(kept)).ended or last.instrument == ev.REST or last.key >= (tick,):
            kept -= 1
        return kept

    def copy(self) -> "EventClock":
        """A clock that goes on by itself from the same state."""
        clock = EventClock(self.tokenizer)
        clock._state, clock._states = self._state, self._states.copy()
        return clock
