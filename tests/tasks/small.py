"""What the tests of tasks share: a small model with roles, its engine, and pieces."""

import functools

import numpy as np

from sage_jax.decoding.engine import Engine
from sage_jax.models.config import ModelConfig
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece, note_array
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents
from tests.models.small import parameters, tiny_config

GRID = NoteEvents(tracks_per_program=2)
ROLES = RoleEvents.of(GRID)
PIANO, PIANO_2, BASS, DRUM_SET = (0, 0), (0, 1), (33, 0), (DRUMS, 0)  # (program, track)


@functools.cache
def role_config(architecture: str = "nested") -> ModelConfig:
    """A model over ROLES."""
    return tiny_config(
        vocab_sizes=ROLES.vocab_sizes,
        tracks_per_program=ROLES.tracks_per_program,
        roles=True,
        architecture=architecture,
        lookahead=2 if architecture == "nested" else 0,
        kv_sharing="mqa",
        num_heads=2,
    )


@functools.cache
def _engine(rows: int, architecture: str) -> Engine:
    config = role_config(architecture)
    return Engine(config, parameters(config), ROLES, context=511, rows=rows, first_capacity=512, chunk=16)


def engine_of(rows: int, architecture: str = "nested") -> Engine:
    """An engine with free rows; those of equally many share their programs."""
    return _engine(rows, architecture).sibling()


def song(bars: int = 12, seed: int = 0, changes: bool = False) -> Piece:
    """Two pianos, a bass and drums, quantized; with `changes`, a bar of 3/4 in its middle and a new tempo inside a bar."""
    rng = np.random.default_rng(seed)
    rows = [
        (int(tick), *track, int(pitch))
        for track, (low, high) in {PIANO: (60, 80), PIANO_2: (40, 60), BASS: (30, 50), DRUM_SET: (36, 45)}.items()
        for tick, pitch in zip(rng.integers(0, 48 * bars, 3 * bars), rng.integers(low, high, 3 * bars), strict=True)
    ]
    notes = [(tick, program, pitch, 6, 65, track) for tick, program, track, pitch in sorted(set(rows))]
    middle = 48 * (bars // 2)
    tempos = [(0, 120.0), (middle + 7, 90.0)] if changes else [(0, 120.0)]
    meters = [(0, 4, 4), (middle, 3, 4), (middle + 36, 4, 4)] if changes else [(0, 4, 4)]
    piece = Piece(note_array(notes), np.array(tempos, TEMPO), np.array(meters, METER))
    return ROLES.quantize(piece)
