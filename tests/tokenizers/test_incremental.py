"""Coding events one by one gives what NoteEvents.encode and decode give for the whole piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece, note_array
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.event_clock import EventClock
from sage_jax.tokenizers.incremental import EventDecoder, EventEncoder, TimedNote, event_decoder, event_encoder
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from tests.tokenizers.items import before, items, push, quantized_pieces

TOKENIZER = NoteEvents()


# Encoding


@settings(max_examples=100)
@given(quantized_pieces())
def test_the_events_of_items_one_by_one_are_those_of_the_piece(encoded):
    tokenizer, piece = encoded
    encoder, expected = EventEncoder(tokenizer), tokenizer.encode(piece)
    events = np.concatenate([push(encoder, items(piece)), encoder.finish()])
    assert events.dtype == np.int16 and np.array_equal(events, expected)
    assert len(encoder) == len(expected)


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_after_each_item_the_events_are_those_of_the_piece_so_far(encoded, data):
    tokenizer, piece = encoded
    rows = items(piece)
    ticks = sorted({row[0] for _, row in rows} - {0})
    tick = data.draw(st.sampled_from([*ticks, 10**6]))
    encoder = EventEncoder(tokenizer)
    events = push(encoder, [item for item in rows if item[1][0] < tick])
    assert np.array_equal(np.concatenate([events, encoder.copy().finish()]), tokenizer.encode(before(piece, tick)))


@settings(max_examples=60)
@given(quantized_pieces())
def test_a_beginning_without_meter_and_tempo_gets_the_defaults(encoded):
    tokenizer, piece = encoded
    late = Piece.from_changes(piece.notes, piece.tempos[1:], piece.meters[1:], tokenizer.ticks_per_quarter)
    rows = [item for item in items(piece) if item[0] == "note" or item[1][0] > 0]
    encoder = EventEncoder(tokenizer)
    events = np.concatenate([push(encoder, rows), encoder.finish()])
    assert np.array_equal(events, tokenizer.encode(late))


def test_notes_can_be_pushed_as_rows_records_and_arrays():
    rows = [(0, 0, 60, 12, 65), (0, 0, 64, 12, 65), (500, DRUMS, 36, 1, 97)]
    notes = note_array(rows)
    expected = TOKENIZER.encode(Piece.from_notes(rows))[:-1]
    for pushes in (rows, [rows], [[list(row) for row in rows]], notes, [notes], [notes[:2], notes[2:]], [[], list(notes)]):
        encoder = EventEncoder(TOKENIZER)
        assert np.array_equal(np.concatenate([encoder.push(notes) for notes in pushes]), expected)


# Decoding


@settings(max_examples=100)
@given(quantized_pieces())
def test_events_one_by_one_mean_what_they_mean_in_the_piece(encoded):
    tokenizer, piece = encoded
    events = tokenizer.encode(piece)
    decoder = EventDecoder(tokenizer)
    decoded = [decoder.push(event) for event in events]
    assert decoded[0].kind == "begin" and decoded[-1].kind == "end"
    notes = [event.note for event in decoded if event.kind == "note"]
    assert [note[:6] for note in notes if note] == piece.notes.tolist()
    assert [(event.tick, event.qpm) for event in decoded if event.kind == "tempo"] == piece.tempos.tolist()
    meters = [(event.tick, *event.meter) for event in decoded if event.kind == "meter"]
    assert meters == piece.meters.tolist()
    assert sum(event.kind == "rest" for event in decoded) == (events[:, ev.INSTRUMENT] == ev.REST).sum()
    inside = [event for event in decoded if event.kind in ("note", "tempo", "meter")]
    ticks = np.array([event.tick for event in inside])
    assert [event.bar for event in inside] == piece.bars.locate(ticks)[0].tolist()
    assert [event.seconds for event in inside] == piece.seconds(ticks).tolist()
    assert all(note == event.note and note.onset == event.tick and note.start == event.seconds
               for note, event in zip(notes, [event for event in decoded if event.note], strict=True))  # fmt: skip


@settings(max_examples=40)
@given(quantized_pieces(), st.data())
def test_the_end_of_a_note_follows_the_tempo_known_at_its_event(encoded, data):
    tokenizer, piece = encoded
    events = tokenizer.encode(piece)
    stop = data.draw(st.integers(1, len(events)))
    decoder = EventDecoder(tokenizer)
    last = [decoder.push(event) for event in events[:stop]][-1]
    if last.note:
        so_far = tokenizer.decode(events[:stop])
        assert last.note.end == so_far.seconds(last.note.onset + last.note.duration)


def test_a_known_note_in_ticks_and_seconds():
    """A tempo change inside the note moves its end, which the clock then knows."""
    piece = Piece(
        note_array([(12, 40, 60, 24, 65)]), np.array([(0, 120), (24, 60)], TEMPO), np.array([(0, 1, 4), (12, 3, 4)], METER)
    )
    decoder = event_decoder(TOKENIZER)
    decoded = [decoder.push(event) for event in TOKENIZER.encode(piece)]
    assert [event.kind for event in decoded] == ["begin", "meter", "tempo", "meter", "note", "tempo", "end"]
    assert decoded[4].note == TimedNote(12, 40, 60, 24, 65, 0, 0.5, 1.5)
    assert decoded[3].meter == (3, 4) and decoded[3].bar == 1 and decoded[4].bar == 1
    assert decoded[5].qpm == 60 and decoded[5].seconds == 1.0 and decoder.clock.seconds(36) == 2.0
    assert decoder.push(np.zeros(5)).kind == "padding"


# Going back, and both on one clock


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_after_a_rollback_the_same_pushes_give_the_same_events(encoded, data):
    tokenizer, piece = encoded
    rows, expected = items(piece), tokenizer.encode(piece)
    kept, more = (data.draw(st.integers(0, len(rows))) for _ in range(2))
    encoder = EventEncoder(tokenizer)
    first = push(encoder, rows[:kept])
    push(encoder, rows[kept : kept + more])
    if data.draw(st.booleans()):
        encoder.finish()
    encoder.rollback(len(first))
    again = [first, push(encoder, rows[kept:]), encoder.finish()]
    assert np.array_equal(np.concatenate(again), expected)

    decoder, never = EventDecoder(tokenizer), EventDecoder(tokenizer)
    for event in expected:
        decoder.push(event)
    decoder.rollback(len(first))
    decoded = [never.push(event) for event in expected][len(first) :]
    assert [decoder.push(event) for event in expected[len(first) :]] == decoded


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_after_a_rollback_to_a_tick_the_items_from_there_on_complete_the_piece(encoded, data):
    tokenizer, piece = encoded
    rows = items(piece)
    encoder = EventEncoder(tokenizer)
    events = np.concatenate([push(encoder, rows), encoder.finish()])
    tick = data.draw(st.sampled_from([0, *(row[0] for _, row in rows)])) + data.draw(st.integers(0, 60))
    kept = encoder.rollback_to(tick)
    later = push(encoder, [item for item in rows if item[1][0] >= tick])
    assert np.array_equal(np.concatenate([events[:kept], later, encoder.finish()]), events)


@settings(max_examples=60)
@given(quantized_pieces(), st.data())
def test_items_continue_events_that_were_decoded(encoded, data):
    """Also from within a chain of rests, as a model may leave it."""
    tokenizer, piece = encoded
    events, rows = tokenizer.encode(piece), items(piece)
    clock = EventClock(tokenizer)
    decoder, encoder = event_decoder(tokenizer, clock), event_encoder(tokenizer, clock)
    stop = data.draw(st.integers(0, len(events) - 1))
    known = [decoder.push(event).kind in ("meter", "tempo", "note") for event in events[:stop]]
    assert np.array_equal(np.concatenate([push(encoder, rows[sum(known) :]), encoder.finish()]), events[stop:])
    assert len(decoder) == len(encoder) == len(events)


# Errors


def test_an_item_out_of_order_is_refused_with_the_way_back():
    encoder = EventEncoder(TOKENIZER)
    encoder.push_tempo(0, 120)
    encoder.push((24, 5, 60, 12, 65))
    count, state = len(encoder), encoder.clock.state
    for refused, message in (
        (lambda: encoder.push((23, 5, 60, 12, 65)), r"note at tick 23 sorts before .* note at tick 24; call rollback_to\(23\)"),
        (lambda: encoder.push((24, 5, 59, 12, 65)), "the note at tick 24 sorts before"),
        (lambda: encoder.push((24, 5, 60, 1, 97)), "the note at tick 24 repeats"),
        (lambda: encoder.push_tempo(24, 60), "the tempo at tick 24 sorts before"),
        (lambda: encoder.push_meter(0, 3, 4), "the meter at tick 0 sorts before"),
        (lambda: encoder.push([(24, 5, 61, 12, 65), (30, 5, 61, 12, 65), (29, 5, 61, 12, 65)]), "the note at tick 29"),
    ):
        with pytest.raises(UserError, match=message):
            refused()
        assert len(encoder) == count and encoder.clock.state == state
    encoder.rollback_to(23)
    encoder.push([(23, 5, 60, 12, 65), (24, 5, 60, 12, 65)])
    encoder.push_tempo(25, 60)
    with pytest.raises(UserError, match="the tempo at tick 25 repeats"):
        encoder.push_tempo(25, 80)


def test_values_outside_the_vocabulary_are_refused_as_encode_refuses_them():
    encoder = EventEncoder(TOKENIZER)
    for refused, message in (
        (lambda: encoder.push((0, 0, 60, 25, 65)), "duration"),
        (lambda: encoder.push((0, 0, 60, 12, 64)), "velocity"),
        (lambda: encoder.push((0, 0, 128, 12, 65)), "pitch"),
        (lambda: encoder.push((-1, 0, 60, 12, 65)), "before tick 0"),
        (lambda: encoder.push_tempo(0, 121.5), "tempo"),
        (lambda: encoder.push_tempo(-1, 120), "tick -1"),
        (lambda: encoder.push_meter(0, 15, 4), "meter 15/4"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
        assert len(encoder) == 0


def test_the_end_comes_once_and_not_after_a_rest():
    encoder = EventEncoder(TOKENIZER)
    assert np.array_equal(encoder.finish(), TOKENIZER.encode(Piece.from_notes([])))
    with pytest.raises(UserError, match="EOS is the last event"):
        encoder.finish()
    with pytest.raises(UserError, match="the note at tick 99 follows the last event, EOS"):
        encoder.push((99, 0, 60, 12, 65))
    assert encoder.rollback_to(99) == 3
    encoder.clock.advance(TOKENIZER.rest)
    with pytest.raises(UserError, match="the note at tick 191 sorts before the last event, the rest at tick 144"):
        encoder.push((191, 0, 60, 12, 65))
    with pytest.raises(UserError, match=r"a rest is the last event; drop it with rollback_to\(145\)"):
        encoder.finish()
    assert len(encoder.copy().push((192, 0, 60, 12, 65))) == 1
    assert encoder.rollback_to(145) == 3
    assert len(encoder.finish()) == 1


def test_other_tokenizers_have_no_incremental_form():
    for tokenizer in (RemiBpe(TOKENIZER), Mmt(TOKENIZER)):
        for make in (event_decoder, event_encoder):
            with pytest.raises(UserError, match=f"{type(tokenizer).__name__} can't .* use its encode and decode"):
                make(tokenizer)


def test_a_clock_of_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="another tokenizer"):
        EventDecoder(TOKENIZER, EventClock(NoteEvents(24)))
