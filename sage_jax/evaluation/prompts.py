"""The task: to continue four bars of a piece that the model has never heard. Which bars, by rule."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.data.crops import evenly
from sage_jax.errors import UserError
from sage_jax.evaluation.nmsi import LEAST_BARS, LEAST_NOTES, MAX_BARS, why_not
from sage_jax.music.notes import Piece

HOPS = (20, 12, 8, 6, 4, 3, 2, 1)  # bars between prompts of a piece


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A few bars to be continued, and what truly follows; each of the three pieces begins at tick 0.

    name: of the piece, within the corpus. start: the number of the prompt's first bar in it. prompt_bars: how many are given.
    bars: N, how many are to be written. prompt: the bars given. reference: the N bars behind them. later: the N bars behind those.
    """

    name: str
    start: int
    prompt_bars: int
    bars: int
    prompt: Piece
    reference: Piece
    later: Piece

    @property
    def end(self) -> int:
        """The tick, from the prompt's first, at which its last bar ends and a continuation begins."""
        return self.prompt.bar_start(self.prompt_bars)

    @property
    def length(self) -> int:
        """The ticks of the N bars that are to be written."""
        return self.reference.bar_start(self.bars)

    @property
    def stop_bar(self) -> int:
        """The bar, from the prompt's first and in its last meter, before which a continuation of that length ends."""
        return self.prompt_bars + -(-self.length // int(self.prompt.bars.lengths[-1]))

    def continuation(self, whole: Piece) -> Piece:
        """What `whole`, a piece that begins with the prompt, has behind it, from tick 0 on."""
        notes = whole.notes[whole.notes["onset"] >= self.end].copy()
        notes["onset"] -= self.end
        return with_notes(self.reference, notes)


def choose_prompts(
    names: Sequence[str], pieces: Sequence[Piece], wanted: int, prompt_bars: int = 4, max_bars: int = MAX_BARS
) -> tuple[list[Prompt], int]:
    """At most `wanted` prompts out of `pieces`, in their order, and the hop in bars that they needed.

    A prompt and two stretches of N = 4 to `max_bars` bars behind it, as long as the piece allows, have 8 notes at least each:
    so every prompt has a true continuation and true later bars to compare it with. From the first bar with a note on, prompts of
    a piece begin every 20 bars, so that none lies in the true continuation of another; only where that gives too few do they
    begin every 12, 8, 6, 4, 3, 2 bars or 1. Of more than are wanted, as many are kept, spread evenly over all of them. Raises
    UserError where there are not two.
    """
    found: dict[tuple[int, int], Prompt] = {}
    for hop in HOPS:
        fresh = {
            (index, start): prompt
            for index, (name, piece) in enumerate(zip(names, pieces, strict=True))
            for start in _starts(piece, hop, prompt_bars)
            if (index, start) not in found and (prompt := window(name, piece, start, prompt_bars, max_bars))
        }
        found.update(evenly(list(fresh.items()), wanted - len(found)))
        if len(found) == wanted:
            break
    if len(found) < 2:
        raise UserError(
            f"the split has {len(found)} prompt(s), and two are needed: {prompt_bars + 2 * LEAST_BARS} bars with enough notes to be "
            "a prompt with two continuations; evaluate on more or longer pieces"
        )
    return [found[place] for place in sorted(found)], hop


def _starts(piece: Piece, hop: int, prompt_bars: int) -> Iterator[int]:
    if len(piece.notes):
        yield from range(piece.first_bar, piece.num_bars - prompt_bars - 2 * LEAST_BARS + 1, hop)


def window(name: str, piece: Piece, start: int, prompt_bars: int, max_bars: int) -> Prompt | None:
    """The prompt that begins at bar `start` of `piece`; None where one of its three parts is too short or too empty."""
    bars = min(max_bars, (piece.num_bars - start - prompt_bars) // 2)
    if bars < LEAST_BARS:
        return None
    edges = start + prompt_bars + np.array([-prompt_bars, 0, bars, 2 * bars])
    prompt, reference, later = (piece.slice_bars(int(low), int(high)) for low, high in zip(edges, edges[1:], strict=False))
    if len(prompt.notes) < LEAST_NOTES or why_not(reference, bars) or why_not(later, bars):
        return None
    return Prompt(name, start, prompt_bars, bars, prompt, reference, later)


def with_notes(piece: Piece, notes: np.ndarray) -> Piece:
    """`notes` under the tempo and the meter that `piece` begins with."""
    return Piece(notes, piece.tempos[:1], piece.meters[:1], piece.ticks_per_quarter)


def empty(piece: Piece) -> Piece:
    """Silence in place of `piece`."""
    return with_notes(piece, piece.notes[:0])


def cut(piece: Piece, end: int) -> Piece:
    """The notes of `piece` that begin before the tick `end`, and end there at the latest."""
    notes = piece.notes[piece.notes["onset"] < end].copy()
    notes["duration"] = np.minimum(notes["duration"], end - notes["onset"])
    return dataclasses.replace(piece, notes=notes)
