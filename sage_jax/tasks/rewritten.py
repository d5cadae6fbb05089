"""Takes of a rewritten piece: from a file or a piece to the files that a user gets."""

import os
from collections.abc import Sequence

from sage_jax.decoding.continuation import Continuations
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.totals import Totals
from sage_jax.music.midi import at_resolution, parse_direct, piece_of
from sage_jax.music.notes import Piece
from sage_jax.takes import ContinuationConfig, Takes
from sage_jax.tasks.performance import perform
from sage_jax.tasks.rewriting import Rewriting, common_resolution, parse_bars, parse_own
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.leads import Lead


def plan_rewriting(
    music: str | os.PathLike | Piece,
    tokenizer: Tokenizer,
    own: Sequence[int | str] | None,
    bars: str | tuple[int, int] | None,
    lead: Lead,
) -> Rewriting:
    """What a model of `tokenizer` does with a MIDI file or a Piece; arguments as in `Model.accompany`.

    The piece is read at a resolution that holds its own ticks and the model's. Raises UserError as `Rewriting.plan`.
    """
    read = music if isinstance(music, Piece) else parse_direct(music)
    common = common_resolution(read.ticks_per_quarter, tokenizer.grid.ticks_per_quarter)
    piece = at_resolution(read, common) if isinstance(read, Piece) else piece_of(read, music, common)
    return Rewriting.plan(
        piece,
        tokenizer,
        own=None if own is None else parse_own(own),
        bars=parse_bars(bars) if isinstance(bars, str) else bars,
        lead=lead,
    )


def rewritten(engine: Engine, plan: Rewriting, wanted: ContinuationConfig, sampling: SamplingConfig) -> Takes:
    """`wanted.num_samples` takes of `plan`, each of at most `wanted.max_events` own events."""
    totals, compiled = Totals(), engine.compile_seconds
    found = perform(
        engine,
        [plan.assignment] * wanted.num_samples,
        sampling=sampling,
        seed=wanted.seed,
        max_events=wanted.max_events,
        totals=totals,
    )
    pieces = [plan.finish(each.notes) for each in found]
    continuations = Continuations(
        pieces=pieces,
        notes=[len(each.notes) for each in found],
        ended=[not each.is_cut for each in found],
        prompt_end=0,
        prompt_events=len(plan.piece.notes),
        context_events=engine.limit,
        prefill_seconds=totals.prefill_seconds,
        decode_seconds=totals.decode_seconds,
        compile_seconds=engine.compile_seconds - compiled,
        written=plan.written,
    )
    return Takes(tuple(pieces), plan.piece, (), continuations)
