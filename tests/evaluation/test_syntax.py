"""Syntax errors are counted, and grammar-constrained generation has none, whatever the model."""

import dataclasses

import numpy as np
from hypothesis import given

from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.evaluation.syntax import SyntaxErrors, event_errors, note_errors
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from tests.models.small import parameters, tiny_config
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()


@given(pieces())
def test_encoded_pieces_have_no_errors(piece):
    quantized = TOKENIZER.quantize(piece)
    events = TOKENIZER.encode(quantized)
    found = event_errors(TOKENIZER, events)
    assert (found.invalid, found.reversals, found.duplicates) == (0, 0, 0)
    assert found.tokens == 5 * (len(events) - 2) and found.notes == len(quantized.notes)


def test_each_kind_of_error_is_counted():
    piece = TOKENIZER.quantize(Piece.from_notes([(12 * n, 0, 60 + n, 12, 64) for n in range(8)]))
    events = TOKENIZER.encode(piece).astype(np.int64)
    notes = np.flatnonzero(NoteEvents.is_note(events))
    wrong = events.copy()
    wrong[notes[0], ev.PITCH] = ev.FIRST_DRUM  # a drum on a piano
    wrong[notes[1], ev.VELOCITY] = ev.NONE
    wrong[notes[2], ev.ONSET] = 10**6
    wrong[notes[3], ev.INSTRUMENT] = ev.PAD
    found = event_errors(TOKENIZER, wrong)
    # A drum pitch for a piano, no velocity, an onset out of range, and an invalid instrument, for which no pitch is valid.
    assert found.invalid == 1 + 1 + 1 + 2 + 2
    back = events.copy()
    back[notes[3], ev.ONSET] = ev.FIRST + 1
    assert event_errors(TOKENIZER, back).reversals == 1
    twice = np.insert(events, notes[2], events[notes[2]], axis=0)
    twice[notes[2] + 1, ev.ONSET] = twice[notes[2], ev.ONSET]
    assert event_errors(TOKENIZER, twice).duplicates == 1
    assert event_errors(TOKENIZER, events[:1]) == SyntaxErrors()


def test_unplayable_notes_are_counted():
    piece = Piece.from_notes(
        [(0, 0, 3, 6, 64), (0, 0, 60, 6, 64), (0, 0, 60, 9, 64), (0, DRUMS, 36, 6, 64), (0, DRUMS, 99, 6, 64)]
    )
    assert note_errors(piece) == SyntaxErrors(notes=5, duplicates=1, unplayable=2)
    total = note_errors(piece) + note_errors(piece)
    assert dataclasses.asdict(total) == dict(tokens=0, notes=10, invalid=0, reversals=0, duplicates=2, unplayable=4)


def test_an_untrained_model_generates_no_errors():
    """The grammar masks the logits: random weights, two temperatures, prompts of different lengths."""
    engine = Engine(tiny_config(), parameters(tiny_config()), TOKENIZER, context=255, rows=2)
    pieces = [Piece.from_notes([(12 * n, 0, 60, 6, 64) for n in range(count)]) for count in (1, 5)]
    prompts = [TOKENIZER.encode(TOKENIZER.quantize(piece))[:-1] for piece in pieces]
    settings = [(prompt, SamplingConfig(temperature=temperature)) for temperature in (1.0, 5.0) for prompt in prompts]
    requests = [Request(prompt, Limits(allow_eos=False), sampling, max_events=120, seed=1) for prompt, sampling in settings]
    takes = list(Scheduler(engine).run(requests))
    assert len(takes) == 4
    for take in takes:
        errors = event_errors(TOKENIZER, np.concatenate([take.request.events, take.events]))
        assert errors.tokens >= 5 * 120
        assert (errors.invalid, errors.reversals, errors.duplicates) == (0, 0, 0)
