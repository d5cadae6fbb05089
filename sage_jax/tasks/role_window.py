"""RoleWindow: the last bars of two growing streams as one sequence, in the order of training."""

import dataclasses

import numpy as np

from sage_jax.decoding.event_stream import EventStream
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.role_events import RoleEvents

NO_LIMIT = 1 << 30


@dataclasses.dataclass(frozen=True)
class RoleWindow:
    """What a model reads: events int16 [N, 5], BOS first.

    bar, offset: the number of the first bar, and the tick at which it begins. later: the tick from which on the first of the
    given events is known that are not in it; None if all of them are.
    """

    events: np.ndarray
    bar: int
    offset: int
    later: int | None

    @classmethod
    def of(
        cls,
        own: EventStream,
        given: EventStream,
        late: int,
        header: np.ndarray,
        bar: int,
        until: int = NO_LIMIT,
        most: int = NO_LIMIT,
    ) -> "RoleWindow":
        """The window of two streams of RoleEvents from a bar on, which the own stream has reached.

        late: ticks after which given events are known. header: of the sequence, int16 [h, 5]. until: given events that are
        known later are left out. most: events of each stream, the last ones.
        """
        assert isinstance(own.tokenizer, RoleEvents)
        head, offset, mine, my_ticks = _from_bar(own, bar, most)
        _, _, others, ticks = _from_bar(given, bar, most)
        keys = ticks + late
        is_known = keys <= until
        others = own.tokenizer.as_given(others[is_known])
        order = np.argsort(np.concatenate([2 * keys[is_known], 2 * my_ticks + 1]), kind="stable")
        rows = np.concatenate([others, mine])[order]
        later = int(keys[~is_known][0]) if not is_known.all() else None
        return cls(np.concatenate([head, header, rows]).astype(np.int16), bar, offset, later)

    def extended(self, event: np.ndarray) -> "RoleWindow":
        """The window with an event of the model's, int [5], at its end."""
        return dataclasses.replace(self, events=np.concatenate([self.events, event[None].astype(np.int16)]))

    def common(self, other: "RoleWindow") -> int:
        """The number of events with which both begin."""
        length = min(len(self.events), len(other.events))
        differs = (self.events[:length] != other.events[:length]).any(axis=1)
        return int(differs.argmax()) if differs.any() else length


def _from_bar(stream: EventStream, bar: int, most: int) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """(head, first tick, events, ticks) of a stream from a bar on: the head has the meter and the tempo of its first tick.

    A rest in the first bar is none: the head is there.
    """
    events, states = stream.events, stream.clock.states
    ticks = states["bar_start"] + states["position"]
    first = max(int(np.searchsorted(states["bar"], bar)), stream.opening)
    start = _start_of(states[first - 1], bar)
    if first < len(events):
        start = int(states["bar_start"][first]) if states["bar"][first] == bar else start
    while first < len(events) and ticks[first] == start and events[first, ev.INSTRUMENT] < ev.FIRST_PROGRAM:
        first += 1
    kinds = events[:first, ev.INSTRUMENT]
    head = np.concatenate([events[:1], *(events[:first][kinds == kind][-1:] for kind in (ev.METER_CHANGE, ev.TEMPO_CHANGE))])
    head[1:, ev.ONSET] = ev.FIRST
    first = max(first, len(events) - most)
    rows = events[first:].copy()
    if len(rows):
        onset = (int(states["bar"][first]) - bar) * stream.tokenizer.max_position + int(states["position"][first])
        rows[0, ev.ONSET] = ev.FIRST + onset
    return head, start, rows, ticks[first:].astype(np.int64)


def _start_of(state: np.void, bar: int) -> int:
    """The tick at which a bar begins that is not before that of `state`."""
    return int(state["bar_start"] + (bar - state["bar"]) * state["bar_ticks"])
