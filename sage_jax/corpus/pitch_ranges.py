"""Which pitches each instrument plays in a split: for transposition and for the bounds of what a model writes."""

import numpy as np

from sage_jax.corpus.shards import TokenShards
from sage_jax.music.notes import DRUMS
from sage_jax.tokenizers.note_events import DRUM_KIT, FIRST_PITCH, FIRST_PROGRAM, INSTRUMENT, PITCH

PITCHES = 128
RARE = 0.001  # the share of an instrument's notes on each side that does not count: files have mistakes


def pitch_counts(shards: TokenShards) -> np.ndarray:
    """How often each program plays each pitch, int64 [DRUMS, 128]; drums are left out."""
    counts = np.zeros(DRUMS * PITCHES, np.int64)
    for events in shards:
        pitched = (events[:, INSTRUMENT] >= FIRST_PROGRAM) & (events[:, INSTRUMENT] < DRUM_KIT)
        program, pitch = events[pitched, INSTRUMENT].astype(np.int64) - FIRST_PROGRAM, events[pitched, PITCH] - FIRST_PITCH
        counts += np.bincount(program * PITCHES + pitch, minlength=len(counts))
    return counts.reshape(DRUMS, PITCHES)


def pitch_ranges(counts: np.ndarray) -> np.ndarray:
    """(lowest, highest) pitch of each program, int [DRUMS, 2], without its `RARE` extremes; (0, 127) without any note."""
    below = np.cumsum(counts, axis=1)
    total = below[:, -1:]
    lowest = (below > RARE * total).argmax(axis=1)
    highest = (below >= (1 - RARE) * total).argmax(axis=1)
    ranges = np.stack([lowest, highest], axis=1)
    ranges[total[:, 0] == 0] = 0, PITCHES - 1
    return ranges


def as_json(counts: np.ndarray) -> dict[str, list[int]]:
    """Program -> [lowest pitch, highest pitch, notes], for the programs that play."""
    ranges = pitch_ranges(counts)
    return {
        str(program): [*ranges[program].tolist(), int(counts[program].sum())]
        for program in np.flatnonzero(counts.sum(axis=1)).tolist()
    }
