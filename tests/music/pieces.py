"""Hypothesis strategies for difficult pieces: drums, overlaps, repeats, pickups, tempo and meter changes, long rests."""

import numpy as np
from hypothesis import strategies as st

from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece, bar_ticks, note_array

METERS = [(4, 4), (3, 4), (1, 4), (6, 8), (7, 8), (2, 2), (12, 8), (1, 8), (5, 4), (3, 16), (15, 4), (9, 4), (4, 1)]



# Made once: what hypothesis finds out about a strategy takes longer than to draw from it.
_PROGRAMS = st.lists(st.integers(0, DRUMS), min_size=1, max_size=20, unique=True)
_SHARE = st.sampled_from([1, 1, 2, 3, 6])  # tracks of each program
_PLACE = st.integers(0, 19)  # in a list of tracks, which may be shorter
_PITCH, _VELOCITY, _AGAIN = st.integers(0, 127), st.integers(1, 127), st.booleans()
_GAP = st.sampled_from([*range(13), *([0, 0, 1, 47, 48, 96, 500, 4000] * 2)])
_DURATION = st.sampled_from([*range(1, 61), *([61, 100, 767, 768, 5000] * 12)])
_OVERLAP = st.sampled_from([0, 0, 1, None])  # None: the duration
_AGAIN_DURATION = st.integers(1, 90)
_CHANGES, _QPM = st.lists(st.integers(1, 6000), max_size=5, unique=True), st.floats(5, 500)
_NUM_METERS, _METER, _BARS = st.integers(1, 6), st.sampled_from(METERS), st.sampled_from([1, 1, 2, 5, 40])
_CUT = st.sampled_from([0, 0, 0, 1, 7])


@st.composite
def pieces(draw, ticks_per_quarter: int = 12, max_notes: int = 40) -> Piece:
    """A piece with up to 20 tracks, up to six of one program, cut bars, rests of many bars, equal notes and long notes."""
    programs, share = draw(_PROGRAMS), draw(_SHARE)
    rows, tick = [], 0
    for _ in range(draw(st.integers(0, max_notes))):
        tick += draw(_GAP)
        place, track = divmod(draw(_PLACE) % (len(programs) * share), share)
        duration = draw(_DURATION)
        rows.append((tick, programs[place], draw(_PITCH), duration, draw(_VELOCITY), track))
        if draw(_AGAIN):  # the same pitch again: directly after, overlapping, or at the same onset
            later = draw(_OVERLAP)
            rows.append((tick + (duration if later is None else later), *rows[-1][1:3], draw(_AGAIN_DURATION), 64, track))
    tempos = [(at, draw(_QPM)) for at in [0, *sorted(draw(_CHANGES))]]
    meters, at = [], 0
    for _ in range(draw(_NUM_METERS)):
        meter = draw(_METER)
        meters.append((at, *meter))
        bars = draw(_BARS) * bar_ticks(*meter, ticks_per_quarter)
        at += max(1, bars - draw(_CUT))
    return Piece(note_array(rows), np.array(tempos, TEMPO), np.array(meters, METER), ticks_per_quarter)
