"""NoteEvents: encoding is lossless after quantization, and every crop of a piece decodes to a piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece, note_array
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()
TOKENIZERS = [TOKENIZER, NoteEvents(max_bar_step=1, num_velocities=8), NoteEvents(max_bar_quarters=4)]
TOKENIZERS += [NoteEvents(tracks_per_program=tracks) for tracks in (2, 4, 16)]


@settings(max_examples=120)
@given(pieces(), st.sampled_from(TOKENIZERS))
def test_decode_inverts_encode(piece, tokenizer):
    quantized = tokenizer.quantize(piece)
    events = tokenizer.encode(quantized)
    assert tokenizer.decode(events) == quantized
    assert events.dtype == np.int16 and (events < tokenizer.vocab_sizes).all() and (events > ev.PAD).all()


@pytest.mark.parametrize("ticks_per_quarter", [24, 48])
@settings(max_examples=50)
@given(data=st.data())
def test_decode_inverts_encode_on_finer_grids(ticks_per_quarter, data):
    tokenizer = NoteEvents(ticks_per_quarter)
    quantized = tokenizer.quantize(data.draw(pieces(ticks_per_quarter)))
    assert tokenizer.decode(tokenizer.encode(quantized)) == quantized


@given(pieces(), st.sampled_from(TOKENIZERS))
def test_quantize_is_idempotent_and_counts_changes(piece, tokenizer):
    loss = QuantizationStats()
    quantized = tokenizer.quantize(piece, loss)
    again = QuantizationStats()
    assert tokenizer.quantize(quantized, again) == quantized
    assert again == QuantizationStats()
    assert len(piece.notes) == len(quantized.notes) + loss.duplicate_notes
    changes = len(piece.tempos) + len(piece.meters)
    kept = len(quantized.tempos) + len(quantized.meters) + loss.tempos_merged + loss.meters_merged + loss.changes_after_the_end
    assert changes == kept if not loss.meters_split else changes <= kept
    keys = quantized.notes[["onset", "program", "track", "pitch"]]
    assert len(np.unique(keys)) == len(keys)
    assert len(piece.tracks) == len(quantized.tracks) + loss.tracks_merged


SPLITS = {
    (11, 4): [(6, 4), (5, 4)], (17, 8): [(9, 8), (8, 8)], (9, 4): [(5, 4), (4, 4)], (17, 16): [(9, 16), (8, 16)],
    (16, 4): [(8, 4)], (17, 4): [(6, 4), (5, 4)], (8, 32): [(4, 16)], (7, 8): [(7, 8)],
}  # fmt: skip


@pytest.mark.parametrize("meter", SPLITS)
def test_a_meter_outside_the_vocabulary_is_split_into_bars(meter):
    """Also if the last bars are silent or a note is held over their end."""
    bar = 48 * meter[0] // meter[1]
    piece = Piece.from_notes([(0, 0, 60, 12, 64), (bar + 1, 0, 62, 6 * bar, 64)], meter=meter)
    loss = QuantizationStats()
    quantized = NoteEvents().quantize(piece, loss, end=4 * bar)
    assert list(dict.fromkeys(quantized.meters[["numerator", "denominator"]].tolist())) == SPLITS[meter]
    lines = quantized.bar_lines(4 * bar + 1)
    assert set(range(0, 4 * bar + 1, bar)) <= set(lines.tolist()) and quantized.meters["tick"].max() < 4 * bar
    assert loss.meters_split == (meter in [(11, 4), (17, 8), (9, 4), (17, 16), (16, 4), (17, 4)]) and loss.meters_merged == 0
    assert NoteEvents().decode(NoteEvents().encode(quantized)) == quantized


@given(pieces(), st.data())
def test_crop_decodes_to_the_same_music_from_its_bar_on(piece, data):
    quantized = TOKENIZER.quantize(piece)
    events = TOKENIZER.encode(quantized)
    start = data.draw(st.sampled_from(TOKENIZER.bar_starts(events).tolist()))
    crop = TOKENIZER.decode(TOKENIZER.crop(events, start, len(events) + 2))
    before = TOKENIZER.decode(events[: start + 1])  # up to the event that opens the bar
    opening = int(events[start, ev.INSTRUMENT])
    last = before.notes["onset"][-1] if opening >= ev.FIRST_PROGRAM else before.tempos["tick"][-1]
    tick = before.meters["tick"][-1] if opening == ev.METER_CHANGE else last
    bar = int(quantized.bars.locate(np.array([tick]))[0][0])
    expected = quantized.slice_bars(bar, 10**6)
    assert np.array_equal(crop.notes, expected.notes)
    ends = int(crop.end) + 1
    for ours, theirs in ((crop.tempos, expected.tempos), (crop.meters, expected.meters)):
        assert np.array_equal(ours[ours["tick"] < ends], theirs[theirs["tick"] < ends])


@settings(max_examples=50)
@given(pieces(), st.integers(4, 30))
def test_crop_is_bounded_and_begins_with_meter_and_tempo(piece, length):
    events = TOKENIZER.encode(TOKENIZER.quantize(piece))
    for start in TOKENIZER.bar_starts(events)[:5]:
        crop = TOKENIZER.crop(events, int(start), length)
        assert len(crop) <= length
        assert (crop[0] == ev.BOS).all()
        assert crop[1:3, ev.INSTRUMENT].tolist() == [ev.METER_CHANGE, ev.TEMPO_CHANGE]
        assert crop[1, ev.ONSET] == crop[2, ev.ONSET] == ev.FIRST


@settings(max_examples=50)
@given(pieces(), st.sampled_from([TOKENIZER, NoteEvents(tracks_per_program=4)]), st.integers(-12, 12))
def test_transpose_equals_transposing_the_piece(piece, tokenizer, semitones):
    quantized = tokenizer.quantize(piece)
    events = tokenizer.encode(quantized)
    pitches = quantized.notes["pitch"][quantized.notes["program"] != DRUMS]
    span = tokenizer.pitch_range(events)
    assert span == ((int(pitches.min()), int(pitches.max())) if len(pitches) else None)
    if len(pitches) and not 0 <= pitches.min() + semitones <= pitches.max() + semitones <= 127:
        with pytest.raises(ValueError, match="semitones"):
            tokenizer.transpose(events, semitones)
    else:
        assert tokenizer.decode(tokenizer.transpose(events, semitones)) == quantized.transpose(semitones)


def test_known_events():
    """Two bars by hand: a pickup of one beat, a chord, a drum, a rest of nine bars and a tempo change."""
    notes = [(0, 0, 60, 12, 65), (12, 0, 64, 24, 65), (12, DRUMS, 36, 1, 97), (12 + 9 * 48 + 6, 33, 36, 48, 65)]
    piece = Piece(note_array(notes), np.array([(0, 120), (60, 90)], TEMPO), np.array([(0, 1, 4), (12, 4, 4)], METER))
    step = TOKENIZER.max_position
    one, four = (TOKENIZER.first_meter + TOKENIZER.meters.index(meter) for meter in ((1, 4), (4, 4)))
    tempo = {qpm: ev.FIRST_TEMPO + TOKENIZER.tempos.tolist().index(qpm) for qpm in (90, 120)}
    piano, bass, drums = ev.FIRST_PROGRAM, ev.FIRST_PROGRAM + 33, TOKENIZER.first_drum_track
    soft, loud = (ev.FIRST + TOKENIZER.velocities.tolist().index(velocity) for velocity in (65, 97))
    length = {ticks: ev.FIRST + TOKENIZER.durations.tolist().index(ticks) for ticks in (1, 12, 24, 48)}
    expected = [
        [ev.BOS] * 5,
        [ev.FIRST, ev.METER_CHANGE, one, ev.NONE, ev.NONE],
        [ev.FIRST, ev.TEMPO_CHANGE, tempo[120], ev.NONE, ev.NONE],
        [ev.FIRST, piano, ev.FIRST_PITCH + 60, length[12], soft],
        [ev.FIRST + step, ev.METER_CHANGE, four, ev.NONE, ev.NONE],
        [ev.FIRST, piano, ev.FIRST_PITCH + 64, length[24], soft],
        [ev.FIRST, drums, ev.FIRST_DRUM + 36, length[1], loud],
        [ev.FIRST + step, ev.TEMPO_CHANGE, tempo[90], ev.NONE, ev.NONE],
        [ev.FIRST + 3 * step, ev.REST, ev.NONE, ev.NONE, ev.NONE],
        [ev.FIRST + 3 * step, ev.REST, ev.NONE, ev.NONE, ev.NONE],
        [ev.FIRST + 2 * step + 6, bass, ev.FIRST_PITCH + 36, length[48], soft],
        [ev.EOS] * 5,
    ]
    assert TOKENIZER.encode(piece).tolist() == expected


def test_an_empty_piece_is_its_meter_and_tempo():
    empty = Piece.from_notes([])
    events = TOKENIZER.encode(empty)
    assert len(events) == 4
    assert TOKENIZER.decode(events) == empty
    assert TOKENIZER.decode(np.zeros((0, 5))) == empty


@pytest.mark.parametrize(("ticks_per_quarter", "num_velocities"), [(12, 32), (5, 127), (48, 1)])
def test_durations_and_velocities_become_the_nearest_of_their_tables(ticks_per_quarter, num_velocities):
    """Of two equally near values the lower one is chosen."""
    tokenizer = NoteEvents(ticks_per_quarter=ticks_per_quarter, num_velocities=num_velocities)
    durations = np.arange(1, tokenizer.durations[-1] + 100)
    velocities = np.arange(len(durations)) % 127 + 1
    rows = [(0, number // 128, number % 128, *row) for number, row in enumerate(zip(durations, velocities, strict=True))]
    piece = Piece.from_notes(rows[:: len(rows) // 8000 + 1], ticks_per_quarter)
    quantized = tokenizer.quantize(piece).notes
    for name, table, index in (
        ("duration", tokenizer.durations, tokenizer.duration_index),
        ("velocity", tokenizer.velocities, tokenizer.velocity_index),
    ):
        nearest = table[np.abs(table - piece.notes[name][:, None]).argmin(axis=1)]
        assert (quantized[name] == nearest).all()
        assert (table[index(nearest)] == nearest).all()
        with pytest.raises(ValueError, match=f"a {name} is not in the vocabulary"):
            index(table[-1:] + 1)


def test_encode_refuses_a_piece_that_is_not_quantized():
    note = (0, 0, 60, 25, 64)
    for piece, message in (
        (Piece.from_notes([note]), "duration"),
        (Piece.from_notes([], qpm=121.5), "tempo"),
        (Piece.from_notes([], meter=(15, 4)), "meter"),
    ):
        with pytest.raises(ValueError, match=message):
            TOKENIZER.encode(piece)
    with pytest.raises(ValueError, match="24 ticks per quarter"):
        TOKENIZER.quantize(Piece.from_notes([], ticks_per_quarter=24))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ([ev.FIRST, ev.FIRST_PROGRAM, ev.FIRST_DRUM, ev.FIRST, ev.FIRST], "pitch"),
        ([ev.FIRST, TOKENIZER.first_drum_track, ev.FIRST_PITCH, ev.FIRST, ev.FIRST], "pitch"),
        ([ev.FIRST, ev.METER_CHANGE, ev.FIRST_PITCH, ev.NONE, ev.NONE], "pitch"),
        ([ev.FIRST, ev.FIRST_PROGRAM, ev.FIRST_PITCH, ev.NONE, ev.FIRST], "duration"),
        ([ev.FIRST, ev.NONE, ev.NONE, ev.NONE, ev.NONE], "instrument"),
        ([9999, ev.FIRST_PROGRAM, ev.FIRST_PITCH, ev.FIRST, ev.FIRST], "id"),
    ],
)
def test_decode_refuses_invalid_events(event, message):
    with pytest.raises(ValueError, match=message):
        TOKENIZER.decode(np.array([event]))


PINNED = {
    NoteEvents(): "0a9043a29dcc",
    NoteEvents(24, 2, 6, 16): "49f49eea1e79",
    RemiBpe(): "2b1d1258edc6",
    Mmt(): "49e898ebbf6a",
}  # fmt: skip


@pytest.mark.parametrize("tokenizer", PINNED)
def test_fingerprints_do_not_change_between_versions(tokenizer):
    """Shards, checkpoints and weights store them."""
    assert tokenizer.fingerprint == PINNED[tokenizer] and "tracks_per_program" not in str(tokenizer.to_dict())


def test_tracks_of_a_program_stay_apart_up_to_the_last_that_the_vocabulary_has():
    """In unison, so that each merged track loses its notes; the longest stays."""
    piece = Piece.from_notes([(0, program, 60, 12 + track, 65, track) for program in (40, DRUMS) for track in range(3)])
    for tracks, expected in ((1, [(0, 14)]), (2, [(0, 12), (1, 14)]), (4, [(0, 12), (1, 13), (2, 14)])):
        tokenizer, loss = NoteEvents(tracks_per_program=tracks), QuantizationStats()
        quantized = tokenizer.quantize(piece, loss)
        assert quantized.notes[["track", "duration"]].tolist() == expected * 2
        assert (loss.tracks_merged, loss.duplicate_notes) == (2 * (3 - len(expected)), 2 * (3 - len(expected)))
        events = tokenizer.encode(quantized)[3:-1]
        assert tokenizer.program_of(events[:, ev.INSTRUMENT]).tolist() == quantized.notes["program"].tolist()
        assert tokenizer.track_of(events[:, ev.INSTRUMENT]).tolist() == quantized.notes["track"].tolist()
        assert (tokenizer.is_pitched(events) == (quantized.notes["program"] == 40)).all()
        assert tokenizer.vocab_sizes[ev.INSTRUMENT] == tokenizer.instrument_of(DRUMS, tracks - 1) + 1
    with pytest.raises(ValueError, match="a track is not in the vocabulary"):
        NoteEvents(tracks_per_program=2).encode(piece)


def test_a_slice_keeps_the_numbers_of_its_tracks():
    """So what a window or a player's notes are does not depend on which other tracks sound in them."""
    tokenizer = NoteEvents(tracks_per_program=4)
    piece = Piece.from_notes([(0, 40, 60, 12, 65), (48, 40, 60, 12, 65, 1)])
    late = piece.slice_bars(1, 2)
    assert late.tracks == piece.tracks and tokenizer.quantize(late).notes["track"].tolist() == [1]


def test_settings_round_trip_and_differ_in_fingerprint():
    for tokenizer in TOKENIZERS:
        assert NoteEvents.from_dict(tokenizer.to_dict()) == tokenizer
    assert len({tokenizer.fingerprint for tokenizer in TOKENIZERS}) == len(TOKENIZERS)
    with pytest.raises(UserError, match="tokenizer.max_bar_step"):
        NoteEvents(max_bar_step=0)
    with pytest.raises(UserError, match="tokenizer.tracks_per_program is 17; give a whole number from 1 to 16"):
        NoteEvents(tracks_per_program=17)
