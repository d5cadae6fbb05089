"""Takes: several continuations of one prompt."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.note_events import EOS


@dataclasses.dataclass(frozen=True)
class Continuations:
    """Continuations (takes) of one prompt.

    pieces: prompt and continuation together, with the prompt's tracks. notes: number of new notes in each. ended: whether the
    model ended each piece.
    prompt_end: tick at which the prompt's last bar ends. prompt_events: number of its events. context_events: number of events
    that the model read of it, including the head of the window. decode_seconds: without prefill and compilation.
    written: the ticks between which the model wrote in a piece that was there; None for a continuation.
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
    written: tuple[int, int] | None = None

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
    engine: Engine,
    prompt: Piece,
    *,
    prompt_bars: int,
    num_bars: int,
    max_events: int,
    num_samples: int = 4,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    programs: Sequence[int | tuple[int, int]] | None = None,
    pitches: Mapping[int, tuple[int, int]] | None = None,
) -> Continuations:
    """Continues `prompt` by `num_bars` bars, `num_samples` times, each by at most `max_events` events.

    prompt: quantized, `prompt_bars` bars long; 0 bars to start from nothing. Of a prompt or a take that does not fit into
    the engine's context, the model reads the last bars that fit into WINDOW_FRACTION of it. programs: as in Limits.
    pitches: as in Limits. Notes are cut at the end of the last bar.
    """
    tokenizer = engine.tokenizer
    events = tokenizer.encode(prompt)[:-1]
    stop_bar = prompt_bars + num_bars
    limits = Limits(first_bar=prompt_bars, stop_bar=stop_bar, programs=programs, pitches=pitches or {})
    scheduler = Scheduler(engine)
    compiled = engine.compile_seconds
    requests = [Request(events, limits, sampling, max_events, seed, number) for number in range(num_samples)]
    takes = sorted(scheduler.run(requests), key=lambda take: take.request.number)
    engine.reset()
    pieces = [tokenizer.decode(np.concatenate([events, take.events])).with_tracks_of(prompt) for take in takes]
    return Continuations(
        pieces=[piece.cut_at(piece.bar_start(stop_bar)) for piece in pieces],
        notes=[int(tokenizer.num_notes(take.events).sum()) for take in takes],
        ended=[bool(len(take.events) and take.events[-1, 0] == EOS) for take in takes],
        prompt_end=prompt.bar_start(prompt_bars),
        prompt_events=len(events),
        context_events=len(tokenizer.window(events, scheduler.window_length)[0]),
        prefill_seconds=scheduler.totals.prefill_seconds,
        decode_seconds=scheduler.totals.decode_seconds,
        compile_seconds=engine.compile_seconds - compiled,
    )
