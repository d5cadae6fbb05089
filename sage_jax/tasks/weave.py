"""Two streams in one sequence: the model's own events and those that it is given, each where the model knows it.

A given event comes where all own events before its key have been: the tick from which on the model knows it (leads.py). At one
tick given events come first. So whether an own event comes before the next given one is for the model to decide, and a
sequence can be drawn from left to right: a drawn event that would lie at the key or later waits, the given events are read,
and the model draws again. The loss of that decision is the probability of all onsets from the key on, which `floors` hold.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from sage_jax.tasks.crop_items import PER_ITEM, CropItems
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.leads import Lead
from sage_jax.tokenizers.role_events import RoleEvents

TARGET, NO_TARGET = 0, -1  # floors of an own event that the model predicts, and of any other one


class Woven(NamedTuple):
    """A sequence of events in both roles.

    events: int16 [N, 5], BOS first. floors: int16 [N], by event: TARGET; NO_TARGET; or an onset id, for an event that is no
    target but before which the model decides that its own next onset has at least this id.
    keys: int64 [N], the tick of an own event, or that from which on a given one is known; 0 in head and header.
    """

    events: np.ndarray
    floors: np.ndarray
    keys: np.ndarray


@dataclasses.dataclass(frozen=True)
class Part:
    """What is own and what is given in a crop.

    own: bool [M], by item; changes count as own in any case. lead: when the model knows what is given.
    start, stop: the ticks between which the model predicts its events. Own events before `start` are history; those from `stop`
    on are given. Both are bar lines.
    until: the tick before which given events are known; at least `stop`.
    """

    own: np.ndarray
    lead: Lead
    start: int
    stop: int
    until: int


@dataclasses.dataclass(frozen=True)
class _Stream:
    """Events of one role in order: rows int16 [n, 5]; tick, key, bar_start, bar_ticks int64 [n]; is_target bool [n].

    bar_start, bar_ticks: those of the bar from which the next event counts.
    """

    rows: np.ndarray
    tick: np.ndarray
    key: np.ndarray
    bar_start: np.ndarray
    bar_ticks: np.ndarray
    is_target: np.ndarray

    def only(self, chosen: np.ndarray) -> "_Stream":
        """The `chosen` events, bool [n]: the first ones of the stream, since an onset counts from the event before it."""
        return _Stream(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def weave(items: CropItems, part: Part, tokenizer: RoleEvents, instruments: np.ndarray | None = None) -> Woven:
    """The sequence of `items` for `part`, which ends with an EOS event that is no target.

    What would be known at `part.stop` or later is left out.

    instruments: ids of the own tracks that the header declares; None for those of the own notes.
    """
    is_note, tick = items.is_note, items.tick
    is_meter = items.rows[:, ev.INSTRUMENT] == ev.METER_CHANGE
    is_own = part.own & is_note
    own = (is_own | ~is_note) & (tick < part.stop)
    given = (is_note & (~is_own | (tick >= part.stop)) | is_meter) & (tick < part.until)
    if instruments is None:
        instruments = np.unique(items.rows[is_own, ev.INSTRUMENT])
    mine = _stream(items, own, part.stop, tokenizer)
    others = _stream(items, given, part.until, tokenizer)
    others = dataclasses.replace(others, rows=tokenizer.as_given(others.rows, part.lead))
    known = part.lead.keys(others.tick, items.bars, tokenizer.ticks_per_quarter, part.start)
    is_change = (mine.rows[:, ev.INSTRUMENT] > ev.REST) & (mine.rows[:, ev.INSTRUMENT] < ev.FIRST_PROGRAM)
    mine = dataclasses.replace(mine, is_target=~is_change & (mine.tick >= part.start))
    others = dataclasses.replace(others, key=known).only(known < part.stop)
    return _merge(items, part, mine, others, tokenizer.header(part.lead, instruments), tokenizer)


def _stream(items: CropItems, chosen: np.ndarray, until: int, tokenizer: RoleEvents) -> _Stream:
    """The stream of the `chosen` items, bool [M], with a rest in each bar before the tick `until` that has none of them."""
    arrays = [getattr(items, name)[chosen] for name in PER_ITEM]
    bar, next_bar = arrays[PER_ITEM.index("bar")], arrays[PER_ITEM.index("next_bar")]
    last = items.num_bars - 1 if until == items.end else items.bars.bar_of(max(until - 1, 0))
    has_event = np.zeros(last + 2, bool)
    has_event[0] = True  # the head
    has_event[bar] = has_event[next_bar] = True
    silent = np.flatnonzero(~has_event[: last + 1])
    if len(silent):
        starts, zeros = items.bars.start(silent), np.zeros(len(silent), np.int64)
        lengths = items.bars.lengths[items.bars.locate(starts)[2]]
        rest = np.tile(np.array(tokenizer.rest, np.int16), (len(silent), 1))
        rests = (rest, starts, silent, zeros, silent, starts, lengths)  # in the order of PER_ITEM
        order = np.argsort(np.concatenate([arrays[PER_ITEM.index("tick")], starts]), kind="stable")
        arrays = [np.concatenate(pair).take(order, axis=0) for pair in zip(arrays, rests, strict=True)]
    rows, tick, bar, position, next_bar, bar_start, bar_ticks = arrays
    advanced = bar.copy()
    advanced[1:] -= next_bar[:-1]
    rows[:, ev.ONSET] = ev.FIRST + advanced * tokenizer.max_position + position
    return _Stream(rows, tick, tick, bar_start, bar_ticks, np.zeros(len(rows), bool))


def _merge(
    items: CropItems, part: Part, mine: _Stream, others: _Stream, header: np.ndarray, tokenizer: RoleEvents
) -> Woven:
    is_own = np.concatenate([np.zeros(len(others.rows), bool), np.ones(len(mine.rows), bool)])
    key = np.concatenate([others.key, mine.key])
    order = np.argsort(key * 2 + is_own, kind="stable")
    join = lambda name: np.concatenate([getattr(others, name), getattr(mine, name)]).take(order, axis=0)
    rows, is_target, key, is_own = join("rows"), join("is_target"), key[order], is_own[order]

    # The own clock before each event, and before the end: that after the last own event, or after the head.
    place = np.where(is_own, np.arange(1, len(rows) + 1), 0)
    before = np.concatenate([[0], np.maximum.accumulate(place)]) if len(rows) else np.zeros(1, np.int64)
    first = items.bars.lengths[:1]
    clock = lambda name, at_first: np.concatenate([at_first, join(name)])[before]
    own_tick, starts, lengths = clock("tick", [0]), clock("bar_start", [0]), clock("bar_ticks", first)
    key_and_end = np.append(key, part.stop)
    advanced, position = np.divmod(key_and_end - starts, lengths)
    floor = ev.FIRST + advanced * tokenizer.max_position + position
    # One decision for all events of a key, where own events can be and none of them has come to the key.
    decides = np.append(~is_target, True) & (key_and_end > own_tick) & (key_and_end > part.start)
    decides[1:] &= np.append(is_target, True)[:-1] | (key_and_end[1:] > key_and_end[:-1])
    decides &= (advanced >= 0) & (floor < tokenizer.vocab_sizes[ev.ONSET])
    floors = np.where(decides, floor, NO_TARGET)
    floors[:-1][is_target] = TARGET

    end = np.full((1, ev.NUM_ATTRIBUTES), ev.EOS, np.int16)
    heads = len(items.head) + len(header)
    return Woven(
        np.concatenate([items.head, header, rows, end]).astype(np.int16),
        np.concatenate([np.full(heads, NO_TARGET), floors]).astype(np.int16),
        np.concatenate([np.zeros(heads, np.int64), key_and_end]),
    )


def plain(events: np.ndarray, tokenizer: RoleEvents) -> Woven:
    """A crop [N, 5] of NoteEvents on the same grid as one of `tokenizer`: all events are own, and targets after the head."""
    timed = events[:, ev.ONSET] >= ev.FIRST
    advanced, position = np.divmod(events[:, ev.ONSET].astype(np.int64) - ev.FIRST, tokenizer.max_position)
    bar = np.cumsum(np.where(timed, advanced, 0))
    kept = np.flatnonzero(events[:, ev.INSTRUMENT] != ev.REST)
    rows, timed = events[kept].astype(np.int16), timed[kept]
    rests, onset = tokenizer.onset_ids(np.where(timed, np.diff(bar[kept], prepend=0), 0), position[kept])
    rows[timed, ev.ONSET] = onset[timed]
    rows = np.insert(rows, np.repeat(np.arange(len(rows)), rests), np.array(tokenizer.rest, np.int16), axis=0)
    floors = np.full(len(rows), TARGET, np.int16)
    floors[: tokenizer.HEAD] = NO_TARGET
    return Woven(rows, floors, np.zeros(len(rows), np.int64))
