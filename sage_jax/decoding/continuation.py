"""Continuing a piece: as long as wanted, in windows no longer than what the model was trained on."""

import dataclasses

import jax
import numpy as np

from sage_jax.decoding.generate import Generation, Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.music.events import EOS
from sage_jax.music.notes import Piece

KEPT = 0.75  # how much of the trained context a window may fill before it is continued


@dataclasses.dataclass(frozen=True)
class Takes:
    """Continuations of one prompt; seconds of decoding (prefill apart) and of compiling.

    pieces: prompt and continuation together. notes: how many of each are new. ended: which the model brought to an end.
    prompt_end: the tick at which the prompt's last bar ends. prompt_events: its events. context_events: those of them that
    the model read, the opening of the window among them.
    """

    pieces: list[Piece]
    notes: list[int]
    ended: list[bool]
    prompt_end: int
    prompt_events: int
    context_events: int
    prefill_seconds: float
    decode_seconds: float
    compile_seconds: float

    @property
    def speed(self) -> dict[str, float]:
        """New notes of all takes for each second of decoding, and the seconds."""
        return dict(
            notes_per_second=sum(self.notes) / self.decode_seconds if self.decode_seconds else 0.0,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            compile_seconds=self.compile_seconds,
        )


def opening(piece: Piece, bars: int, name: str) -> Piece:
    """The first `bars` bars of `piece` from the first one with a note on. Raises UserError, naming it, where it has fewer."""
    if not len(piece.notes):
        raise UserError(f"{name} has no notes; give a MIDI file with notes, or no prompt to start from nothing")
    if bars < 1:
        raise UserError(f"prompt_bars is {bars}; give at least 1, or no prompt to start from nothing")
    first = piece.first_bar
    if piece.num_bars - first < bars:
        raise UserError(f"{name} has {piece.num_bars - first} bars of music, fewer than prompt_bars = {bars}; ask for fewer")
    return piece.slice_bars(first, first + bars)


def continue_piece(
    generator: Generator,
    prompt: Piece,
    *,
    prompt_bars: int,
    new_bars: int,
    max_events: int,
    context: int,
    takes: int = 4,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    programs: list[int] | None = None,
) -> Takes:
    """`takes` continuations of `prompt` by `new_bars` bars, decoded as one batch, each by at most `max_events` events.

    prompt: quantized; it fills `prompt_bars` bars, 0 to start from nothing. context: the events that the model was trained
    on at once, which no window exceeds: of a longer prompt, and of a take that outgrows it, the model reads the last bars
    that fit in three quarters of it.
    """
    tokenizer = generator.tokenizer
    events = tokenizer.encode(prompt)[:-1]
    rows = [Row(number, events, prompt_bars, prompt_bars + new_bars) for number in range(takes)]
    seconds = np.zeros(3)
    while not all(row.finished for row in rows):
        generation = extend(
            generator, rows, max_events=max_events, context=context, sampling=sampling, seed=seed, programs=programs
        )
        seconds += (generation.prefill_seconds, generation.decode_seconds, generation.compile_seconds)
    begun = len(events)
    return Takes(
        pieces=[tokenizer.decode(row.events) for row in rows],
        notes=[int(tokenizer.num_notes(row.events[begun:]).sum()) for row in rows],
        ended=[bool(row.events[-1, 0] == EOS) for row in rows],
        prompt_end=prompt.bar_start(prompt_bars),
        prompt_events=begun,
        context_events=len(tokenizer.window(events, int(context * KEPT))[0]),
        **dict(zip(("prefill_seconds", "decode_seconds", "compile_seconds"), seconds.tolist(), strict=True)),
    )


@dataclasses.dataclass
class Row:
    """One continuation that is being written; bars count from the first of the prompt.

    number: tells its random keys from those of other rows, whatever rows it shares a batch with. events: prompt and what
    there is so far, [N, A]. first_bar, stop_bar: it is to begin no earlier than the one and to end before the other. drawn:
    event steps so far. finished: it came to its end, to `stop_bar`, or to as many steps as are allowed.
    """

    number: int
    events: np.ndarray
    first_bar: int
    stop_bar: int
    drawn: int = 0
    finished: bool = False


def extend(
    generator: Generator,
    rows: list[Row],
    *,
    max_events: int,
    context: int,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    programs: list[int] | None = None,
) -> Generation:
    """Draws on for each unfinished row, in one batch, until the context is full or all are finished; changes the rows."""
    tokenizer = generator.tokenizer
    windows, offsets = zip(*(tokenizer.window(row.events, int(context * KEPT)) for row in rows), strict=True)
    open_rows = [(part, row) for part, row in zip(windows, rows, strict=True) if not row.finished]
    longest = max(len(part) for part, _ in open_rows)
    numbers, drawn = (np.array([getattr(row, name) for row in rows], np.uint32) for name in ("number", "drawn"))
    generation = generator.generate(
        [part[-longest:] for part in windows],
        # At least one: a chain of rests longer than the context must not stop the music for good.
        max_events=min(max(context - longest, 1), max(max_events - row.drawn for _, row in open_rows)),
        first_bar=np.array([row.first_bar for row in rows]) - np.array(offsets),
        stop_bar=np.array([row.stop_bar for row in rows]) - np.array(offsets),
        sampling=sampling,
        seed=_row_keys(jax.random.key(seed), drawn, numbers),
        programs=programs,
        finished=np.array([row.finished for row in rows]),
    )
    for row, offset, fresh, finished in zip(
        rows, offsets, generation.continuations, generation.finished.tolist(), strict=True
    ):
        if not row.finished:
            row.events = tokenizer.join(row.events, fresh[: max_events - row.drawn], offset)
            row.drawn += generation.steps
            row.finished = finished or row.drawn >= max_events
    return generation


@jax.jit
def _row_keys(key: jax.Array, drawn: jax.Array, numbers: jax.Array) -> jax.Array:
    """A key [B] for what each row draws from here on."""
    fold = lambda drawn, number: jax.random.fold_in(jax.random.fold_in(key, drawn), number)
    return jax.vmap(fold)(drawn, numbers)
