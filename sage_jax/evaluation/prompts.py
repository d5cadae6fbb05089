"""Selects the prompts of the continuation task, and the reference continuation of each, from the pieces of a split."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sage_jax.corpus.splits import subsample_evenly
from sage_jax.errors import UserError
from sage_jax.evaluation.nmsi import MAX_BARS, MIN_BARS, MIN_NOTES
from sage_jax.music.notes import Piece

HOPS = (20, 12, 8, 6, 4, 3, 2, 1)  # bars between two prompts of a piece, in the order they are tried


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt with its reference continuation; each of the three pieces begins at tick 0.

    name: of the piece within the corpus. start: the index of the prompt's first bar in that piece.
    prompt_bars: bars of the prompt. bars: N, the bars to generate.
    prompt: the given bars. reference: the N bars after the prompt. next_bars: the N bars after the reference.
    """

    name: str
    start: int
    prompt_bars: int
    bars: int
    prompt: Piece
    reference: Piece
    next_bars: Piece

    @property
    def end(self) -> int:
        """The tick, from the prompt's start, at which its last bar ends and the continuation begins."""
        return self.prompt.bar_start(self.prompt_bars)

    @property
    def length(self) -> int:
        """The length of the N bars to generate, in ticks."""
        return self.reference.bar_start(self.bars)

    @property
    def stop_bar(self) -> int:
        """The exclusive last bar of a continuation of `length` ticks, in bars of the prompt's last meter from its start."""
        return self.prompt_bars + -(-self.length // int(self.prompt.bars.lengths[-1]))

    def continuation(self, whole: Piece) -> Piece:
        """The part of `whole`, a piece that begins with the prompt, after the prompt; it begins at tick 0."""
        notes = whole.notes[whole.notes["onset"] >= self.end].copy()
        notes["onset"] -= self.end
        return with_notes(self.reference, notes)


def choose_prompts(
    names: Sequence[str], pieces: Sequence[Piece], max_prompts: int, prompt_bars: int = 4, max_bars: int = MAX_BARS
) -> tuple[list[Prompt], int]:
    """At most `max_prompts` prompts from `pieces`, in the pieces' order, and the smallest hop in bars that was needed.

    After each prompt the piece must have 2 N bars, where N is 4 to `max_bars`, as large as the piece allows. The prompt and
    both halves need 8 notes each, so that every prompt has a reference and next bars to compare with.
    Prompts of a piece start at its first bar with a note and follow every 20 bars, so no prompt lies in another's reference.
    If that gives too few prompts, the hop falls to 12, 8, 6, 4, 3, 2 and 1 bars. A surplus is subsampled evenly.
    Raises UserError for fewer than two prompts.
    """
    found: dict[tuple[int, int], Prompt] = {}
    for hop in HOPS:
        added = {
            (index, start): prompt
            for index, (name, piece) in enumerate(zip(names, pieces, strict=True))
            for start in _starts(piece, hop, prompt_bars)
            if (index, start) not in found and (prompt := window(name, piece, start, prompt_bars, max_bars))
        }
        found.update(subsample_evenly(list(added.items()), max_prompts - len(found)))
        if len(found) == max_prompts:
            break
    if len(found) < 2:
        raise UserError(
            f"the split has {len(found)} prompt(s), and two are needed: {prompt_bars + 2 * MIN_BARS} bars with enough notes "
            "for a prompt and two continuations; evaluate on more or longer pieces"
        )
    return [found[place] for place in sorted(found)], hop


def _starts(piece: Piece, hop: int, prompt_bars: int) -> Iterator[int]:
    if len(piece.notes):
        yield from range(piece.first_bar, piece.num_bars - prompt_bars - 2 * MIN_BARS + 1, hop)


def window(name: str, piece: Piece, start: int, prompt_bars: int, max_bars: int) -> Prompt | None:
    """The prompt that begins at bar `start` of `piece`; None if one of its three parts is too short or has too few notes."""
    bars = min(max_bars, (piece.num_bars - start - prompt_bars) // 2)
    if bars < MIN_BARS:
        return None
    edges = start + prompt_bars + np.array([-prompt_bars, 0, bars, 2 * bars])
    if np.diff(np.searchsorted(piece.notes["onset"], piece.bars.start(edges))).min() < MIN_NOTES:
        return None
    prompt, reference, next_bars = (piece.slice_bars(int(low), int(high)) for low, high in itertools.pairwise(edges))
    return Prompt(name, start, prompt_bars, bars, prompt, reference, next_bars)


def with_notes(piece: Piece, notes: np.ndarray) -> Piece:
    """A piece of `notes` with the initial tempo and meter of `piece`."""
    return Piece(notes, piece.tempos[:1], piece.meters[:1], piece.ticks_per_quarter)


def empty(piece: Piece) -> Piece:
    """A piece without notes, with the initial tempo and meter of `piece`."""
    return with_notes(piece, piece.notes[:0])


def cut(piece: Piece, end: int) -> Piece:
    """The notes of `piece` that begin before the tick `end`, shortened to end there at the latest."""
    notes = piece.notes[piece.notes["onset"] < end].copy()
    notes["duration"] = np.minimum(notes["duration"], end - notes["onset"])
    return dataclasses.replace(piece, notes=notes)
