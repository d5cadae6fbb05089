"""Hypothesis strategies for difficult pieces: drums, overlaps, repeats, pickups, tempo and meter changes, long rests."""

import numpy as np
from hypothesis import strategies as st

from sage_jax.music.notes import DRUMS, METER, NOTE, TEMPO, Piece, bar_ticks

METERS = [(4, 4), (3, 4), (1, 4), (6, 8), (7, 8), (2, 2), (12, 8), (1, 8), (5, 4), (3, 16), (15, 4), (9, 4), (4, 1)]


@st.composite
def pieces(draw, ticks_per_quarter: int = 12, max_notes: int = 40) -> Piece:
    """A piece with up to 20 instruments, cut bars, rests of many bars, equal notes and long notes."""
    programs = draw(st.lists(st.integers(0, DRUMS), min_size=1, max_size=20, unique=True))
    gaps = st.one_of(st.integers(0, 12), st.sampled_from([0, 0, 1, 47, 48, 96, 500, 4000]))
    rows, tick = [], 0
    for _ in range(draw(st.integers(0, max_notes))):
        tick += draw(gaps)
        duration = draw(st.one_of(st.integers(1, 60), st.sampled_from([61, 100, 767, 768, 5000])))
        rows.append((tick, draw(st.sampled_from(programs)), draw(st.integers(0, 127)), duration, draw(st.integers(1, 127))))
        if draw(st.booleans()):  # the same pitch again: directly after, overlapping, or at the same onset
            again = (rows[-1][0] + draw(st.sampled_from([0, 0, 1, duration])), *rows[-1][1:3], draw(st.integers(1, 90)), 64)
            rows.append(again)
    changes = st.lists(st.integers(1, 6000), max_size=5, unique=True)
    tempos = [(at, draw(st.floats(5, 500))) for at in [0, *sorted(draw(changes))]]
    meters, at = [], 0
    for _ in range(draw(st.integers(1, 6))):
        meter = draw(st.sampled_from(METERS))
        meters.append((at, *meter))
        bars = draw(st.sampled_from([1, 1, 2, 5, 40])) * bar_ticks(*meter, ticks_per_quarter)
        at += max(1, bars - draw(st.sampled_from([0, 0, 0, 1, 7])))
    return Piece(np.array(rows, NOTE), np.array(tempos, TEMPO), np.array(meters, METER), ticks_per_quarter)
