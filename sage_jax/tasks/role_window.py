"""RoleWindow: the last bars of two growing streams as one sequence, in the order of training."""

import dataclasses
from collections.abc import Collection

import numpy as np

from sage_jax.decoding.event_stream import EventStream
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import Lead
from sage_jax.tokenizers.role_events import RoleEvents

NO_LIMIT = 1 << 30


@dataclasses.dataclass(frozen=True)
class RoleWindow:
    """What a model reads: events int16 [N, 5], BOS first.

    bar, offset: the number of the first bar, and the tick at which it begins. later: the tick from which on the first of the
    given events is known that are not in it; None if all of them are. heads: the number of events in head and header.
    """

    events: np.ndarray
    bar: int
    offset: int
    later: int | None
    heads: int

    @classmethod
    def of(
        cls,
        own: EventStream,
        given: EventStream,
        lead: Lead,
        instruments: Collection[int],
        bar: int,
        until: int = NO_LIMIT,
        most: int = NO_LIMIT,
    ) -> "RoleWindow":
        """The window of two streams of RoleEvents from a bar on, which the own stream has reached.

        lead: one of LATE. instruments: ids of those that the model may play; with those that it has played they are declared.
        until: given events that are known later are left out. most: events of each stream, the last ones.
        """
        tokenizer = own.tokenizer
        assert isinstance(tokenizer, RoleEvents)
        head, offset, mine, my_ticks = _from_bar(own, bar, most)
        _, _, others, ticks = _from_bar(given, bar, most)
        keys = ticks + lead.late_ticks(tokenizer.ticks_per_quarter)
        is_known = keys <= until
        others = tokenizer.as_given(others[is_known], lead)
        order = np.argsort(np.concatenate([2 * keys[is_known], 2 * my_ticks + 1]), kind="stable")
        played = mine[mine[:, ev.INSTRUMENT] >= ev.FIRST_PROGRAM, ev.INSTRUMENT]
        header = tokenizer.header(lead, np.array(sorted({*instruments, *played.tolist()})))
        rows = np.concatenate([others, mine])[order]
        later = int(keys[~is_known][0]) if not is_known.all() else None
        heads = len(head) + len(header)
        return cls(np.concatenate([head, header, rows]).astype(np.int16), bar, offset, later, heads)

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
    start = stream.clock.start_of(bar)
    while first < len(events) and ticks[first] == start and events[first, ev.INSTRUMENT] < ev.FIRST_PROGRAM:
        first += 1
    head = stream.tokenizer.head_after(events[:first])
    first = max(first, len(events) - most)
    rows, ticks = events[first:].copy(), ticks[first:].astype(np.int64)
    if len(rows):
        advanced, position = int(states["bar"][first]) - bar, int(states["position"][first])
        rests, rows[0, ev.ONSET] = stream.tokenizer.onset_ids(advanced, position)
        if rests:  # of the bars whose events are left out
            rows = np.concatenate([np.array([stream.tokenizer.rest] * rests, np.int16), rows])
            ticks = np.concatenate([start + np.arange(1, rests + 1) * int(states["bar_ticks"][first]), ticks])
    return head, start, rows, ticks

