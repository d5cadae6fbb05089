"""Baseline continuations that need no model.

loop      repeats the prompt
other     the reference continuation of a prompt from another piece
later     the bars after the reference, from the same piece
markov    a Markov chain of order 2 over note events, fitted to the training split
"""

from collections.abc import Sequence

import numpy as np

from sage_jax.evaluation.markov import place_of
from sage_jax.evaluation.prompts import Prompt, empty, with_notes
from sage_jax.music.notes import Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents

BASELINES = ("loop", "other", "later", "markov")
MAX_EVENTS = 4096  # of one continuation, since a chain may loop over rests


def repeat_prompt(prompts: Sequence[Prompt]) -> list[Piece]:
    """The notes of each prompt, repeated over N bars."""
    return [_repeated(prompt) for prompt in prompts]


def _repeated(prompt: Prompt) -> Piece:
    notes, length = prompt.prompt.notes, prompt.end
    repeats = -(-prompt.length // length)
    tiled = np.tile(notes, repeats)
    tiled["onset"] += np.repeat(length * np.arange(repeats), len(notes)).astype(tiled["onset"].dtype)
    return with_notes(prompt.reference, tiled[tiled["onset"] < prompt.length])


def other_piece(prompts: Sequence[Prompt]) -> list[Piece]:
    """For each prompt the reference of a prompt from another piece with at least as many bars.

    The search starts half the list away. If no other piece has enough bars, the longest reference is taken. If all prompts
    are from one piece, it is another prompt's. Needs at least two prompts.
    """
    count = len(prompts)
    found = []
    for index, prompt in enumerate(prompts):
        others = [prompts[(index + count // 2 + step) % count] for step in range(count)]
        elsewhere = [each for each in others if each.name != prompt.name]
        long_enough = [each for each in elsewhere if each.bars >= prompt.bars]
        longest = sorted(elsewhere, key=lambda each: -each.bars)
        found.append(next(each for each in (*long_enough[:1], *longest[:1], *others) if each is not prompt).reference)
    return found


def next_bars(prompts: Sequence[Prompt]) -> list[Piece]:
    """The N bars after each reference, from the same piece."""
    return [prompt.next_bars for prompt in prompts]


class MarkovChain:
    """A Markov chain of order 2 over whole note events, which backs off to order 1 and order 0 for unseen contexts.

    Events are notes and rests of `tokenizer`, five tokens each. Meter and tempo are the prompt's. A sampled event that would go
    back in time is moved to the next bar.
    """

    def __init__(self, tokenizer: NoteEvents, pieces: Sequence[np.ndarray]):
        """Fits the chain to `pieces`, the events [N, A] of each training piece."""
        self._tokenizer = tokenizer
        streams = [self._notes_alone(np.asarray(events)) for events in pieces]
        self._keys, ids = np.unique(self._key(np.concatenate(streams)), return_inverse=True)
        self._events = np.stack(np.unravel_index(self._keys, tokenizer.vocab_sizes), axis=1).astype(np.int16)
        piece = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
        self._ids = ids
        # For each order: the sorted contexts and the event ids that follow them.
        self._orders: list[tuple[int, np.ndarray, np.ndarray]] = []
        for order in (2, 1):
            follows = np.arange(order, len(ids))
            follows = follows[piece[follows] == piece[follows - order]]
            context = self._context([ids[follows - back] for back in range(order, 0, -1)])
            index = np.argsort(context, kind="stable")
            self._orders.append((order, context[index], ids[follows[index]]))

    def _notes_alone(self, events: np.ndarray) -> np.ndarray:
        """The notes and rests of `events`; the bar advance of a dropped event is added to the next one."""
        kind = events[:, ev.INSTRUMENT]
        kept = self._tokenizer.is_note(events) | (kind == ev.REST)
        size = self._tokenizer.max_position
        advance = np.where(events[:, ev.ONSET] >= ev.FIRST, (events[:, ev.ONSET] - ev.FIRST) // size, 0).astype(np.int64)
        bars = np.cumsum(advance)[kept]
        notes = events[kept].astype(np.int16)
        moved = np.minimum(np.diff(bars, prepend=0), self._tokenizer.max_bar_step)
        notes[:, ev.ONSET] = ev.FIRST + moved * size + (notes[:, ev.ONSET] - ev.FIRST) % size
        return notes

    def _context(self, ids: list[np.ndarray]) -> np.ndarray:
        """One integer for each context of successive event ids, -1 if one of them is unknown."""
        context = ids[0]
        for last in ids[1:]:
            context = np.where((context < 0) | (last < 0), -1, context * len(self._events) + last)
        return context

    def _key(self, rows: np.ndarray) -> np.ndarray:
        """One integer for each event of `rows` [N, A]."""
        return np.asarray(np.ravel_multi_index(tuple(rows.astype(np.int64).T), self._tokenizer.vocab_sizes))

    def _lookup(self, rows: np.ndarray) -> np.ndarray:
        """The id of each event of `rows` [N, A], -1 if it is not in the training data."""
        return place_of(self._keys, self._key(rows))

    def continuations(self, prompts: Sequence[Prompt], seed: int) -> list[Piece]:
        """One sampled continuation of each prompt; all rows advance together."""
        rng = np.random.default_rng(seed)
        size, count = self._tokenizer.max_position, len(prompts)
        ends = np.concatenate([self._notes_alone(self._tokenizer.encode(prompt.prompt))[-2:] for prompt in prompts])
        ids = self._lookup(ends).reshape(count, 2)
        # Bars count from the prompt's end; earlier events are moved there.
        last = [prompt.prompt.bars.locate(prompt.prompt.notes["onset"][-1:]) for prompt in prompts]
        bar = np.array([int(place[0][0]) - prompt.prompt_bars for place, prompt in zip(last, prompts, strict=True)])
        position = np.array([int(place[1][0]) for place in last])
        bars = np.array([prompt.bars for prompt in prompts])
        sampled: list[list[np.ndarray]] = [[] for _ in prompts]
        active = np.arange(count)
        for _ in range(MAX_EVENTS):
            following = self._follow(ids[active], rng)
            events = self._events[following]
            advance, place = np.divmod(events[:, ev.ONSET].astype(np.int64) - ev.FIRST, size)
            advance = np.where((advance == 0) & (place < position[active]), 1, advance)
            before = np.maximum(bar[active], 0)
            bar[active] = np.maximum(bar[active] + advance, 0)
            position[active] = place
            ids[active] = np.stack([ids[active, 1], following], axis=1)
            events[:, ev.ONSET] = ev.FIRST + (bar[active] - before) * size + place
            inside = bar[active] < bars[active]
            for row, event in zip(active[inside].tolist(), events[inside], strict=True):
                sampled[row].append(event)
            active = active[inside]
            if not len(active):
                break
        return [self._piece(prompt, events) for prompt, events in zip(prompts, sampled, strict=True)]

    def _follow(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Samples the next event id [B] after each pair of ids [B, 2], from the highest order whose context was seen."""
        chance = rng.random(len(ids))
        following = self._ids[(chance * len(self._ids)).astype(np.int64)]
        open_rows = np.ones(len(ids), bool)
        for order, contexts, follows in self._orders:
            context = self._context([ids[:, column] for column in range(2 - order, 2)])
            low, high = (np.searchsorted(contexts, context, side) for side in ("left", "right"))
            seen = open_rows & (context >= 0) & (high > low)
            places = low + (chance * (high - low)).astype(np.int64)
            following[seen] = follows[places[seen]]
            open_rows &= ~seen
        return following

    def _piece(self, prompt: Prompt, events: list[np.ndarray]) -> Piece:
        head = self._tokenizer.encode(empty(prompt.reference))[:-1]
        return self._tokenizer.decode(np.concatenate([head, np.array(events, np.int16).reshape(-1, ev.NUM_ATTRIBUTES)]))
