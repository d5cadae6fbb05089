"""Fixed prompts of the embedded corpus, and perturbations of a continuation."""

import dataclasses
import functools

import numpy as np

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.evaluation.prompts import Prompt, choose_prompts
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.note_events import NoteEvents


@functools.cache
def fixed_prompts() -> tuple[Prompt, ...]:
    """The first prompt of each of twelve pieces."""
    tokenizer = NoteEvents()
    paths = sorted(EMBEDDED.glob("freedoom/freedoom2_*.mid"))[:12]
    pieces = [tokenizer.quantize(read_midi(path)) for path in paths]
    prompts, _ = choose_prompts([path.name for path in paths], pieces, 12)
    return tuple(prompts)


def changed(piece: Piece, **fields) -> Piece:
    """`piece` with some note fields replaced; notes with a pitch outside 0 to 127 or an onset before 0 are dropped."""
    notes = piece.notes.copy()
    for field, values in fields.items():
        notes[field] = values
    inside = (notes["pitch"] >= 0) & (notes["pitch"] <= 127) & (notes["onset"] >= 0)
    return piece.with_notes(notes[inside])


def transposed(piece: Piece, semitones: int) -> Piece:
    drums = piece.notes["program"] == DRUMS
    return changed(piece, pitch=np.where(drums, piece.notes["pitch"], piece.notes["pitch"] + semitones))


def shifted(piece: Piece, ticks: int) -> Piece:
    return changed(piece, onset=piece.notes["onset"] + ticks)


def thinned(piece: Piece, seed: int = 0) -> Piece:
    kept = np.random.default_rng(seed).random(len(piece.notes)) < 0.5
    return dataclasses.replace(piece, notes=piece.notes[kept])


def doubled(piece: Piece) -> Piece:
    """Adds a copy of every note an octave up, or down for pitches from 116 on."""
    notes = piece.notes.copy()
    notes["pitch"] += np.where(notes["pitch"] < 116, 12, -12).astype(notes["pitch"].dtype)
    return dataclasses.replace(piece, notes=np.concatenate([piece.notes, notes]))
