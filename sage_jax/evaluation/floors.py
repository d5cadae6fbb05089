"""Continuations that need no model: what a score must be read against.

loop      the prompt again and again
other     the true continuation of a prompt from another piece
later     the bars behind the true continuation, from the same piece: what even the composer's own music scores
markov    a Markov chain of order 2 over note events, learned from the training split
"""

from collections.abc import Sequence

import numpy as np

from sage_jax.evaluation.prompts import Prompt, empty, with_notes
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece

FLOORS = ("loop", "other", "later", "markov")
MAX_EVENTS = 4096  # of one chain: a rest without end must end


def loop(prompts: Sequence[Prompt]) -> list[Piece]:
    """The notes of each prompt, repeated until N bars are full."""
    return [_looped(prompt) for prompt in prompts]


def _looped(prompt: Prompt) -> Piece:
    notes, length = prompt.prompt.notes, prompt.end
    repeats = -(-prompt.length // length)
    looped = np.tile(notes, repeats)
    looped["onset"] += np.repeat(length * np.arange(repeats), len(notes)).astype(looped["onset"].dtype)
    return with_notes(prompt.reference, looped[looped["onset"] < prompt.length])


def other(prompts: Sequence[Prompt]) -> list[Piece]:
    """For each prompt the reference of another one, from half the list further on: of another piece and with as many bars to fill.

    Where there is none such, of another piece; where all are from one piece, of another prompt. There must be two prompts.
    """
    count = len(prompts)
    found = []
    for index, prompt in enumerate(prompts):
        others = [prompts[(index + count // 2 + step) % count] for step in range(count)]
        fits = [mine for mine in others if mine.name != prompt.name and mine.bars >= prompt.bars]
        strangers = sorted((mine for mine in others if mine.name != prompt.name), key=lambda mine: -mine.bars)
        found.append(next(mine for mine in (*fits[:1], *strangers[:1], *others) if mine is not prompt).reference)
    return found


def later(prompts: Sequence[Prompt]) -> list[Piece]:
    return [prompt.later for prompt in prompts]


class MarkovChain:
    """Order 2 over whole note events; a context that was never heard falls back on order 1, and then on order 0.

    Events are notes and rests as `tokenizer` tells them, five tokens each; meter and tempo stay the prompt's. What order 1 or 0
    draws and would go back in time is put into the next bar.
    """

    def __init__(self, tokenizer: NoteEvents, pieces: Sequence[np.ndarray]):
        """pieces: the events [N, A] of each training piece."""
        self._tokenizer = tokenizer
        streams = [self._notes_alone(np.asarray(events)) for events in pieces]
        self._keys, ids = np.unique(self._key(np.concatenate(streams)), return_inverse=True)
        self._events = np.stack(np.unravel_index(self._keys, tokenizer.vocab_sizes), axis=1).astype(np.int16)
        piece = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
        self._ids = ids
        # Contexts in order, each with where what follows it stands.
        self._orders = []
        for order in (2, 1):
            follows = np.arange(order, len(ids))
            follows = follows[piece[follows] == piece[follows - order]]
            context = self._context([ids[follows - back] for back in range(order, 0, -1)])
            index = np.argsort(context, kind="stable")
            self._orders.append((order, context[index], ids[follows[index]]))

    def _notes_alone(self, events: np.ndarray) -> np.ndarray:
        """Notes and rests of `events`; how far a dropped event went forward is added to the next one."""
        kind = events[:, ev.INSTRUMENT]
        kept = (kind >= ev.FIRST_PROGRAM) | (kind == ev.REST)
        size = self._tokenizer.max_position
        advance = np.where(events[:, ev.ONSET] >= ev.FIRST, (events[:, ev.ONSET] - ev.FIRST) // size, 0).astype(np.int64)
        bars = np.cumsum(advance)[kept]
        notes = events[kept].astype(np.int16)
        moved = np.minimum(np.diff(bars, prepend=0), self._tokenizer.max_bar_step)
        notes[:, ev.ONSET] = ev.FIRST + moved * size + (notes[:, ev.ONSET] - ev.FIRST) % size
        return notes

    def _context(self, ids: list[np.ndarray]) -> np.ndarray:
        context = ids[0]
        for last in ids[1:]:
            context = np.where((context < 0) | (last < 0), -1, context * len(self._events) + last)
        return context

    def _key(self, rows: np.ndarray) -> np.ndarray:
        """One number for each event of `rows` [N, A]."""
        return np.ravel_multi_index(rows.astype(np.int64).T, self._tokenizer.vocab_sizes)

    def _lookup(self, rows: np.ndarray) -> np.ndarray:
        """The id of each event of `rows` [N, A], -1 for one that was never heard."""
        key = self._key(rows)
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        return np.where(self._keys[place] == key, place, -1)

    def continuations(self, prompts: Sequence[Prompt], seed: int) -> list[Piece]:
        """One drawn continuation of each prompt; all advance together."""
        rng = np.random.default_rng(seed)
        size, count = self._tokenizer.max_position, len(prompts)
        ends = np.concatenate([self._notes_alone(self._tokenizer.encode(prompt.prompt))[-2:] for prompt in prompts])
        ids = self._lookup(ends).reshape(count, 2)
        # Bars count from the prompt's end, before which nothing is put, whatever the chain says.
        last = [prompt.prompt.bars.locate(prompt.prompt.notes["onset"][-1:]) for prompt in prompts]
        bar = np.array([int(place[0][0]) - prompt.prompt_bars for place, prompt in zip(last, prompts, strict=True)])
        position = np.array([int(place[1][0]) for place in last])
        bars = np.array([prompt.bars for prompt in prompts])
        drawn: list[list[np.ndarray]] = [[] for _ in prompts]
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
                drawn[row].append(event)
            active = active[inside]
            if not len(active):
                break
        return [self._piece(prompt, events) for prompt, events in zip(prompts, drawn, strict=True)]

    def _follow(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An id behind each pair of ids [B, 2], as often as it followed them, or the last one alone, or came at all."""
        chance = rng.random(len(ids))
        following = self._ids[(chance * len(self._ids)).astype(np.int64)]
        open_rows = np.ones(len(ids), bool)
        for order, contexts, follows in self._orders:
            context = self._context([ids[:, column] for column in range(2 - order, 2)])
            low, high = (np.searchsorted(contexts, context, side) for side in ("left", "right"))
            heard = open_rows & (context >= 0) & (high > low)
            places = low + (chance * (high - low)).astype(np.int64)
            following[heard] = follows[places[heard]]
            open_rows &= ~heard
        return following

    def _piece(self, prompt: Prompt, events: list[np.ndarray]) -> Piece:
        head = self._tokenizer.encode(empty(prompt.reference))[:-1]
        return self._tokenizer.decode(np.concatenate([head, np.array(events, np.int16).reshape(-1, ev.NUM_ATTRIBUTES)]))
