"""Mmt is lossless after quantization, has the published rows, and scores every row once in its windows."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.errors import UserError
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.mmt import BEAT, BOS, DURATIONS, EOS, INSTRUMENT_ROW, NOTE_ROW, START_OF_NOTES, TYPE, Mmt
from sage_jax.tokenizers.mmt_instruments import INSTRUMENT_OF, PROGRAM_OF
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces

MMT = Mmt()
FILES = sorted(EMBEDDED.rglob("*.mid"))[::8]


def encoded(rows, mmt: Mmt = MMT) -> np.ndarray:
    return mmt.encode(mmt.quantize(Piece.from_notes(rows)))


@given(pieces(), st.sampled_from([48, 36, 42, 96]))
def test_round_trip(piece, bar_ticks):
    mmt = Mmt(bar_ticks=bar_ticks)
    loss = QuantizationStats()
    quantized = mmt.quantize(piece, loss)
    steps = mmt.encode(quantized)
    assert mmt.decode(steps) == quantized
    assert mmt.quantize(quantized) == quantized
    assert steps.dtype == np.int32 and (steps[[0, -1]] == [[BOS, *[0] * 5], [EOS, *[0] * 5]]).all()
    assert (steps < mmt.vocab_sizes).all() and mmt.num_notes(steps).sum() == len(quantized.notes)
    assert len(piece.notes) == len(quantized.notes) + loss.notes_dropped + loss.duplicate_notes
    assert quantized.bars.lengths.tolist() == [bar_ticks]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_round_trip_of_real_files(path):
    piece = read_midi(path)
    quantized = MMT.quantize(piece)
    assert MMT.decode(MMT.encode(quantized)) == quantized
    kept = piece.notes[(INSTRUMENT_OF[piece.notes["program"]] > 0) & (piece.notes["onset"] < 256 * 12)]
    assert set(quantized.notes["onset"]) == set(kept["onset"]) and set(quantized.notes["pitch"]) == set(kept["pitch"])


def test_rows_are_the_published_ones():
    """One note, and seven notes as ten rows."""
    assert MMT.published_ids(encoded([(0, 6, 60, 18, 80)])).tolist() == [
        [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 0], [3, 1, 1, 61, 15, 3], [4, 0, 0, 0, 0, 0]
    ]  # fmt: skip
    rows = [(0, 0, 60, 12, 80), (0, 0, 64, 12, 80), (0, 33, 36, 24, 90), (0, DRUMS, 36, 1, 100), (12, DRUMS, 38, 1, 100),
            (24, 0, 67, 6, 70), (48, 33, 41, 12, 90)]  # fmt: skip
    ids = MMT.published_ids(encoded(rows))
    assert ids[:, 0].tolist() == [0, 1, 1, 2, 3, 3, 3, 3, 3, 4]
    piano, bass = INSTRUMENT_OF[[0, 33]]
    assert ids[4:9, 1:].tolist() == [
        [1, 1, 37, 18, bass], [1, 1, 61, 12, piano], [1, 1, 65, 12, piano], [3, 1, 68, 6, piano], [5, 1, 42, 12, bass]
    ]  # fmt: skip
    assert MMT.vocab_sizes == (6, 257, 13, 129, 33, 65) and Mmt(max_beats=1025).vocab_sizes[BEAT] == 1026
    assert len(MMT.attributes) == 6


def test_instruments_are_the_published_ones():
    assert INSTRUMENT_OF.max() == 64 and len(PROGRAM_OF) == 65 and (np.diff(PROGRAM_OF) > 0).all()
    assert (INSTRUMENT_OF[PROGRAM_OF[1:]] == np.arange(1, 65)).all()
    assert INSTRUMENT_OF[:8].tolist() == [1, 1, 1, 1, 2, 2, 3, 4] and INSTRUMENT_OF[119] == 64
    dropped = [76, 77, 78, *range(96, 104), *range(112, 117), *range(120, 129)]
    assert np.flatnonzero(INSTRUMENT_OF == 0).tolist() == dropped


def test_quantization_error_is_counted():
    rows = [(0, 0, 60, 13, 80), (0, 1, 60, 12, 64), (12, DRUMS, 38, 6, 99), (24, 120, 60, 6, 99), (24, 0, 60, 999, 64),
            (256 * 12, 0, 60, 12, 64)]  # fmt: skip
    changes = dict(tempos=np.array([(0, 60.0), (48, 90.0)], TEMPO), meters=np.array([(0, 3, 4), (36, 4, 4)], METER))
    loss = QuantizationStats()
    quantized = MMT.quantize(dataclasses.replace(Piece.from_notes(rows), **changes), loss)
    assert quantized.notes.tolist() == [(0, 0, 60, 12, 64, 0), (24, 0, 60, 384, 64, 0)]
    assert (quantized.tempos.tolist(), quantized.meters.tolist()) == ([(0, 120.0)], [(0, 4, 4)])
    assert (loss.notes_dropped, loss.duplicate_notes, loss.durations_clipped) == (3, 1, 1)
    assert (loss.duration_error_ticks, loss.duration_error_ticks_max) == (616, 615)
    assert (loss.tempos_merged, loss.tempo_error_max, loss.meters_merged, loss.meters_replaced) == (1, 1.0, 1, 1)


def test_the_shorter_of_two_nearest_durations_is_chosen():
    rows = [(0, 0, pitch, duration, 64) for pitch, duration in enumerate(range(1, 120))]
    durations = MMT.quantize(Piece.from_notes(rows)).notes["duration"]
    assert durations.tolist() == [DURATIONS[np.abs(DURATIONS - duration).argmin()] for duration in range(1, 120)]


def test_drums_alone_are_an_empty_piece():
    steps = encoded([(0, DRUMS, 38, 6, 99)])
    assert steps[:, TYPE].tolist() == [BOS, START_OF_NOTES, EOS] and not len(MMT.decode(steps).notes)
    assert MMT.window(steps[:-1], 8)[1] == 0 and [first for _, first in MMT.windows(steps, 8)] == [1]


@given(pieces(), st.sampled_from([48, 42]), st.sampled_from([5, 8, 13, 24, 64]))
def test_windows_score_every_step_once(piece, bar_ticks, context):
    mmt = Mmt(bar_ticks=bar_ticks)
    steps = mmt.encode(mmt.quantize(piece))
    found = list(mmt.windows(steps, context))
    assert np.array_equal(found[0][0], steps[:context]) and found[0][1] == 1 and mmt.head_length(steps) == 1
    scored = np.concatenate([steps[:1], *(part[first:] for part, first in found)])
    assert np.array_equal(np.delete(scored, [1, 2], axis=1), np.delete(steps, [1, 2], axis=1))  # without beat and position
    done = min(context, len(steps))
    for part, first in found[1:]:
        assert len(part) <= context and context // 2 <= first <= max(context * 3 // 4, 2)
        # A window has the notes of the piece, with onsets counted from one of its bars.
        history = mmt.num_notes(part[:first]).sum()
        whole, notes = (mmt.decode(rows).notes for rows in (steps, part))
        begin = mmt.num_notes(steps[:done]).sum() - history
        same = whole[begin : begin + len(notes)].copy()
        if len(notes):
            shift = same["onset"] - notes["onset"]
            assert (shift == shift[0]).all() and shift[0] % bar_ticks == 0
            assert notes["onset"][0] < bar_ticks or begin == 0
        done += len(part) - first
    assert done == len(steps)


@pytest.mark.parametrize("path", FILES[::2], ids=lambda path: path.stem)
def test_windows_of_real_files_begin_with_the_instruments(path):
    steps = MMT.encode(MMT.quantize(read_midi(path)))
    head = steps[: np.flatnonzero(steps[:, TYPE] == START_OF_NOTES)[0] + 1]
    parts = list(MMT.windows(steps, 128))
    assert sum(MMT.num_notes(part[first:]).sum() for part, first in parts) == MMT.num_notes(steps).sum()
    assert all(np.array_equal(part[: len(head)], head) and 64 <= first <= 96 for part, first in parts[1:])
    part, bar = MMT.window(steps[:-1], 128)
    assert np.array_equal(part[: len(head)], head) and len(part) <= 128
    notes, whole = MMT.decode(part).notes, MMT.decode(steps).notes
    notes["onset"] += bar * 48
    assert np.array_equal(notes, whole[len(whole) - len(notes) :])
    assert notes["onset"][0] // 48 == bar and len(whole[whole["onset"] >= bar * 48]) == len(notes)
    bars = whole["onset"] // 48
    assert len(head) + (bars >= bars[bars < bar].max()).sum() > 128  # one more bar would not fit


def test_a_window_is_the_last_bars_that_fit():
    rows = [(24 * n, 0, 60 + n, 12, 64) for n in range(10)]  # two notes in each of five bars
    steps = encoded(rows)[:-1]
    assert MMT.window(steps, 13)[0] is steps
    part, bar = MMT.window(steps, 10)
    assert bar == 2 and part[:3, TYPE].tolist() == [BOS, INSTRUMENT_ROW, START_OF_NOTES]
    assert np.array_equal(part[3:, BEAT], steps[7:, BEAT] - 8) and np.array_equal(part[3:, 2:], steps[7:, 2:])
    # The last notes of a bar that is too long.
    part, bar = MMT.window(encoded([(n, 0, 60, 12, 64) for n in range(96)])[:-1], 10)
    assert bar == 1 and len(part) == 10 and MMT.decode(part).notes["onset"].tolist() == list(range(41, 48))
    # Bars of another meter begin inside a beat, so positions are shifted too.
    seven = Mmt(bar_ticks=42)
    part, bar = seven.window(seven.encode(seven.quantize(Piece.from_notes([(42 * n, 0, 60, 6, 64) for n in range(8)])))[:-1], 8)
    assert bar == 3 and seven.decode(part).notes["onset"].tolist() == [0, 42, 84, 126, 168]
    # More instruments than half of the window.
    many = encoded([(48 * n, program, 60, 6, 64) for n, program in enumerate(PROGRAM_OF[1:])])[:-1]
    part, bar = MMT.window(many, 16)
    assert len(part) == 16 and bar == 56 and (part[:8, TYPE] == [BOS, *[INSTRUMENT_ROW] * 6, START_OF_NOTES]).all()
    MMT.decode(part)


def test_pieces_continue_past_the_last_beat():
    """A window leaves a quarter of the beats for a continuation, and `join` shifts it to its place in the piece."""
    steps = encoded([(48 * n, 0, 60, 12, 64) for n in range(63)])[:-1]
    part, bar = MMT.window(steps, 1000)
    assert bar == 15 and len(part) == 3 + 48
    more = MMT.encode(MMT.quantize(Piece.from_notes([(48 * n, 0, 72, 12, 64) for n in range(48, 62)])))[3:]
    whole = MMT.join(steps, more, bar)
    assert MMT.decode(whole).notes["onset"].tolist() == [48 * n for n in range(77)]
    assert whole[:, BEAT].max() > 256 and MMT.window(whole, 1000)[1] == 29
    assert np.array_equal(MMT.join(steps, more[-1:], bar), np.concatenate([steps, more[-1:]]))


def test_decode_refuses_invalid_rows():
    steps = encoded([(0, 0, 60, 12, 64), (6, 0, 62, 12, 64), (12, 40, 64, 12, 64)])
    changed = lambda place, attribute, value: np.concatenate(
        [steps[:place], [np.where(np.arange(6) == attribute, value, steps[place])], steps[place + 1 :]]
    )
    for wrong, message in (
        (changed(4, TYPE, 6), "type is not in the vocabulary"),
        (changed(1, TYPE, NOTE_ROW), "note may not follow BOS"),
        (np.delete(steps, 3, axis=0), "note may not follow instrument"),
        (np.insert(steps, 3, steps[0], axis=0), "BOS may not follow instrument"),
        (np.delete(steps, slice(3, 7), axis=0), "EOS may not follow instrument"),
        (changed(5, 3, 0), r"row 5 \(note\) may not have pitch 0"),
        (changed(5, 4, 33), r"row 5 \(note\) may not have duration 33"),
        (changed(5, 2, -1), r"row 5 \(note\) may not have position -1"),
        (changed(1, 3, 7), r"row 1 \(instrument\) may not have pitch 7"),
        (changed(3, 5, 7), r"row 3 \(start-of-notes\) may not have instrument 7"),
        (steps[[0, 2, 1, *range(3, 8)]], "rows of type instrument are not in order"),
        (steps[[0, 1, 2, 3, 5, 4, 6, 7]], "rows of type note are not in order"),
        (steps[[0, 1, 2, 3, 4, 4, 5, 6, 7]], "one occurs twice"),
    ):
        with pytest.raises(ValueError, match=message):
            MMT.decode(wrong)
    # A part of a piece, padding, and rows after EOS are valid.
    assert len(MMT.decode(steps[4:-1]).notes) == 3 and len(MMT.decode(steps[:1]).notes) == 0
    assert MMT.decode(np.concatenate([np.zeros((2, 6), int), steps, steps])) == MMT.decode(steps)
    whole = np.where(steps[:, :1] == EOS, EOS, steps)  # as the decoder writes the end
    assert MMT.decode(whole) == MMT.decode(steps)


def test_encode_refuses_a_piece_that_is_not_quantized():
    good = MMT.quantize(Piece.from_notes([(0, 0, 60, 12, 64), (12, 0, 60, 12, 64)]))
    for field, value in (("program", 1), ("program", DRUMS), ("velocity", 65), ("duration", 13), ("onset", 256 * 12)):
        notes = good.notes.copy()
        notes[field][-1] = value
        with pytest.raises(ValueError, match="quantize the piece first"):
            MMT.encode(dataclasses.replace(good, notes=notes, tracks=()))
    with pytest.raises(ValueError, match="occurs twice"):
        MMT.encode(dataclasses.replace(good, notes=good.notes[[0, 0]]))
    with pytest.raises(ValueError, match="tempo or meter"):
        MMT.encode(dataclasses.replace(good, meters=np.array([(0, 3, 4)], METER)))
    with pytest.raises(ValueError, match="24 ticks per quarter"):
        MMT.quantize(dataclasses.replace(good, ticks_per_quarter=24))


def test_settings_round_trip():
    mmt = Mmt(NoteEvents(num_velocities=8), max_beats=512, bar_ticks=36)
    values = json.loads(json.dumps(mmt.to_dict()))
    assert Mmt.from_dict(values) == mmt and values["representation"] == "mmt" and mmt.meter == (3, 4)
    assert mmt.fingerprint == Mmt(max_beats=512).fingerprint != MMT.fingerprint
    for bad, message in (
        (dict(grid=NoteEvents(ticks_per_quarter=24)), "ticks_per_quarter is 24"),
        (dict(max_beats=8), "max_beats is 8"),
        (dict(max_beats=256.0), "max_beats is 256.0"),
        (dict(bar_ticks=37), "bar_ticks is 37"),
    ):
        with pytest.raises(UserError, match=message):
            Mmt(**bad)
    with pytest.raises(UserError, match="preprocess the corpus again"):
        Mmt.from_dict({"representation": "remi"})
