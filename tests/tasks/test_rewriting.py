"""Rewriting a piece: what is given stays note for note, at any resolution; errors name what is wrong."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, NOTE, Piece
from sage_jax.tasks.rewriting import Rewriting, common_resolution, parse_bars
from sage_jax.tokenizers.leads import BAR_AHEAD, LEADS, SPAN, lead_of
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces
from tests.tasks.small import BASS, DRUM_SET, PIANO, PIANO_2, ROLES, song

TICKS = ROLES.ticks_per_quarter


def plan(piece, own=(BASS,), bars=None, lead=BAR_AHEAD, tokenizer=ROLES):
    return Rewriting.plan(piece, tokenizer, own=own, bars=bars, lead=lead)


@settings(max_examples=60, deadline=None)
@given(pieces(ticks_per_quarter=60), st.data())
def test_what_is_given_stays_note_for_note(piece, data):
    there = sorted(set(piece.notes["program"].tolist()))
    if len(there) < 2:
        return
    own = data.draw(st.lists(st.sampled_from(there), min_size=1, max_size=len(there) - 1, unique=True))
    first = data.draw(st.integers(1, piece.num_bars))
    bars = first, data.draw(st.integers(first, piece.num_bars))
    low, high = piece.bar_start(bars[0] - 1), piece.bar_start(bars[1])
    assume((low * 2 + 5) // 10 < (high * 2 + 5) // 10)  # a bar of a tick may be nothing on the grid
    found = plan(piece, [(program, None) for program in own], bars)
    nearest = lambda tick: (tick * 2 + 5) // 10  # on the model's grid
    onset = nearest(piece.notes["onset"])
    inside = (onset >= nearest(low)) & (onset < nearest(high)) & np.isin(piece.notes["program"], own)
    assert found.finish(np.zeros(0, NOTE)).notes.tolist() == piece.notes[~inside].tolist()
    job = found.assignment
    assert (job.start, job.stop) == (nearest(low), nearest(high))
    new = np.zeros(1, NOTE)
    new["onset"], new["program"], new["pitch"], new["duration"], new["velocity"] = job.start, own[0], 60, 3, 64
    after = found.finish(new)
    assert np.array_equal(after.tempos, piece.tempos) and np.array_equal(after.meters, piece.meters)
    added = [note for note in after.notes.tolist() if note not in piece.notes[~inside].tolist()]
    assert all(note[0] == job.start * 5 and note[3] == 15 for note in added)


def test_infilling_everything_leaves_what_is_outside_the_bars():
    piece = song()
    found = plan(piece, None, (5, 8), SPAN)
    assert found.assignment.own == (PIANO, PIANO_2, BASS, DRUM_SET)
    bar = piece.notes["onset"] // 48
    assert found.finish(np.zeros(0, NOTE)).notes.tolist() == piece.notes[(bar < 4) | (bar > 7)].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(own=((5, None),), lead=SPAN, bars=(2, 3)), r"own has Electric Piano 2 \(5\), which the piece lacks"),
        (dict(bars=(5, 14)), "bars are 5 to 14, and the piece has bars 1 to 13"),
        (dict(bars=(0, 2)), "bars are 0 to 2"),
        (dict(own=((0, None), BASS, (DRUMS, None))), "nothing is given"),
        (dict(tokenizer=NoteEvents()), "knows no given notes"),
    ],
)
def test_what_cannot_be_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        plan(song(), **settings)
    with pytest.raises(UserError, match="no notes"):
        plan(Piece.from_notes([]))


@pytest.mark.parametrize("text", ["", "-", "5-", "-8", "five", "5-8-9", "1.5"])
def test_bars_that_are_no_bars(text):
    with pytest.raises(UserError, match="bars is"):
        parse_bars(text)


def test_bars_and_leads_as_they_are_written():
    assert parse_bars("5-8") == (5, 8) and parse_bars(" 3 ") == (3, 3)
    assert [lead_of(lead.name) for lead in LEADS] == list(LEADS)
    assert lead_of("2bars") is lead_of("2bar") and lead_of("-0.50") is lead_of("-0.5") and lead_of("+1bar") is BAR_AHEAD
    for name in ("3bar", "0.5", "-0.3", "", "soon"):
        with pytest.raises(UserError, match="no model is trained on; choose one of span, 2bar, 1bar, 0, -0.25"):
            lead_of(name)


@pytest.mark.parametrize("ticks", [24, 96, 220, 480, 1024])
def test_one_resolution_holds_the_file_and_the_grid(ticks):
    common = common_resolution(ticks, TICKS)
    assert common % ticks == common % TICKS == 0 and common == math.lcm(ticks, TICKS)
    with pytest.raises(UserError, match="save it with 480"):
        common_resolution(32_749, TICKS)
