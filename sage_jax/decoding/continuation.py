"""Long-form continuation with a sliding window.

When the context is full, generation restarts from the last bars that fit into WINDOW_FRACTION of it.
"""

import dataclasses

import jax
import numpy as np

from sage_jax.decoding.generate import GenerationOutput, Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.programs import stored
from sage_jax.tokenizers.note_events import EOS

WINDOW_FRACTION = 0.75  # of the context; the rest is for new events


@dataclasses.dataclass(frozen=True)
class Continuations:
    """Continuations (takes) of one prompt.

    pieces: prompt and continuation together. notes: number of new notes in each. ended: whether the model ended each piece.
    prompt_end: tick at which the prompt's last bar ends. prompt_events: number of its events. context_events: number of events
    that the model read of it, including the head of the window. decode_seconds: without prefill and compilation.
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
        """New notes of all takes per second of decoding, and the measured seconds."""
        return dict(
            notes_per_second=sum(self.notes) / self.decode_seconds if self.decode_seconds else 0.0,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            compile_seconds=self.compile_seconds,
        )


def first_bars(piece: Piece, bars: int, name: str) -> Piece:
    """`bars` bars of `piece` from the first bar with a note on. Raises UserError, with its `name`, if there are fewer."""
    if not len(piece.notes):
        raise UserError(f"{name} has no notes; give a MIDI file with notes, or no prompt to start from nothing")
    if bars < 1:
        raise UserError(f"prompt_bars is {bars}; give at least 1, or no prompt to start from nothing")
    first = piece.first_bar
    if piece.num_bars - first < bars:
        raise UserError(f"{name} has {piece.num_bars - first} bars of music, fewer than prompt_bars = {bars}; choose fewer")
    return piece.slice_bars(first, first + bars)


def continue_piece(
    generator: Generator,
    prompt: Piece,
    *,
    prompt_bars: int,
    num_bars: int,
    max_events: int,
    context: int,
    num_samples: int = 4,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    programs: list[int] | None = None,
) -> Continuations:
    """Continues `prompt` by `num_bars` bars, `num_samples` times in one batch, each by at most `max_events` events.

    prompt: quantized, `prompt_bars` bars long; 0 bars to start from nothing. context: the context length in events that the
    model was trained with. Of a prompt or a take that does not fit, the model reads the last bars that fit into WINDOW_FRACTION
    of the context. programs: MIDI programs that may be generated (128 for drums); None for all. Notes are cut at the end of the
    last bar.
    """
    tokenizer = generator.tokenizer
    events = tokenizer.encode(prompt)[:-1]
    rows = [Request(number, events, prompt_bars, prompt_bars + num_bars) for number in range(num_samples)]
    seconds = np.zeros(3)
    while not all(row.finished for row in rows):
        generation = continue_batch(
            generator, rows, max_events=max_events, context=context, sampling=sampling, seed=seed, programs=programs
        )
        seconds += (generation.prefill_seconds, generation.decode_seconds, generation.compile_seconds)
    prompt_events = len(events)
    pieces = [tokenizer.decode(row.events) for row in rows]
    return Continuations(
        pieces=[piece.cut_at(piece.bar_start(prompt_bars + num_bars)) for piece in pieces],
        notes=[int(tokenizer.num_notes(row.events[prompt_events:]).sum()) for row in rows],
        ended=[bool(row.events[-1, 0] == EOS) for row in rows],
        prompt_end=prompt.bar_start(prompt_bars),
        prompt_events=prompt_events,
        context_events=len(tokenizer.window(events, int(context * WINDOW_FRACTION))[0]),
        prefill_seconds=float(seconds[0]),
        decode_seconds=float(seconds[1]),
        compile_seconds=float(seconds[2]),
    )


@dataclasses.dataclass
class Request:
    """One continuation in progress. Bars are counted from the first bar of the prompt.

    number: folded into the PRNG key. events: the prompt and the events generated so far, [N, A]. first_bar, stop_bar: new
    events lie in bars [first_bar, stop_bar). drawn: event steps so far. finished: whether it reached EOS, `stop_bar` or the
    maximum number of events.
    """

    number: int
    events: np.ndarray
    first_bar: int
    stop_bar: int
    drawn: int = 0
    finished: bool = False


def continue_batch(
    generator: Generator,
    rows: list[Request],
    *,
    max_events: int,
    context: int,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    programs: list[int] | None = None,
) -> GenerationOutput:
    """Continues the unfinished rows in one batch until the context is full or all are finished. Updates the rows in place."""
    tokenizer = generator.tokenizer
    windows, offsets = zip(*(tokenizer.window(row.events, int(context * WINDOW_FRACTION)) for row in rows), strict=True)
    open_rows = [(window, row) for window, row in zip(windows, rows, strict=True) if not row.finished]
    longest = max(len(window) for window, _ in open_rows)
    numbers, drawn = (np.array([getattr(row, name) for row in rows], np.uint32) for name in ("number", "drawn"))
    generation = generator.generate(
        [window[-longest:] for window in windows],
        # At least one, so that generation goes on after a series of rests that is longer than the context.
        max_events=min(max(context - longest, 1), max(max_events - row.drawn for _, row in open_rows)),
        first_bar=np.array([row.first_bar for row in rows]) - np.array(offsets),
        stop_bar=np.array([row.stop_bar for row in rows]) - np.array(offsets),
        sampling=sampling,
        seed=_row_keys(np.int32(seed), drawn, numbers),
        programs=programs,
        finished=np.array([row.finished for row in rows]),
    )
    for row, offset, new_events, finished in zip(
        rows, offsets, generation.continuations, generation.finished.tolist(), strict=True
    ):
        if not row.finished:
            row.events = tokenizer.join(row.events, new_events[: max_events - row.drawn], offset)
            row.drawn += generation.steps
            row.finished = finished or row.drawn >= max_events
    return generation


@stored
@jax.jit
def _row_keys(seed: jax.Array, drawn: jax.Array, numbers: jax.Array) -> jax.Array:
    """A PRNG key for each row [B], from the seed, its number and the event steps that it has made."""
    key = jax.random.key(seed)
    fold = lambda drawn, number: jax.random.fold_in(jax.random.fold_in(key, drawn), number)
    return jax.vmap(fold)(drawn, numbers)
