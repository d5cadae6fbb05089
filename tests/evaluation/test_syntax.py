"""What is wrong is counted; what our own decoder writes has nothing wrong, whatever the model says."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given

from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.evaluation.syntax import Faults, faults_of_events, faults_of_notes
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import DRUMS, Piece
from tests.models.small import parameters, tiny_config
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()


@given(pieces())
def test_encoded_pieces_have_no_faults(piece):
    quantized = TOKENIZER.quantize(piece)
    events = TOKENIZER.encode(quantized)
    found = faults_of_events(TOKENIZER, events)
    assert (found.invalid, found.reversals, found.duplicates) == (0, 0, 0)
    assert found.tokens == 5 * (len(events) - 2) and found.notes == len(quantized.notes)


def test_each_fault_is_counted():
    piece = TOKENIZER.quantize(Piece.from_notes([(12 * n, 0, 60 + n, 12, 64) for n in range(8)]))
    events = TOKENIZER.encode(piece).astype(np.int64)
    notes = np.flatnonzero(NoteEvents.is_note(events))
    wrong = events.copy()
    wrong[notes[0], ev.PITCH] = ev.FIRST_DRUM  # a drum on a piano
    wrong[notes[1], ev.VELOCITY] = ev.NONE
    wrong[notes[2], ev.ONSET] = 10**6
    wrong[notes[3], ev.INSTRUMENT] = ev.PAD
    found = faults_of_events(TOKENIZER, wrong)
    # A piano's drum key, no velocity, an onset beyond all, and an instrument that is none, for which no pitch is right.
    assert found.invalid == 1 + 1 + 1 + 2 + 2
    back = events.copy()
    back[notes[3], ev.ONSET] = ev.FIRST + 1
    assert faults_of_events(TOKENIZER, back).reversals == 1
    twice = np.insert(events, notes[2], events[notes[2]], axis=0)
    twice[notes[2] + 1, ev.ONSET] = twice[notes[2], ev.ONSET]
    assert faults_of_events(TOKENIZER, twice).duplicates == 1
    assert faults_of_events(TOKENIZER, events[:1]) == Faults()


def test_notes_that_no_instrument_plays():
    piece = Piece.from_notes([(0, 0, 3, 6, 64), (0, 0, 60, 6, 64), (0, 0, 60, 9, 64), (0, DRUMS, 36, 6, 64), (0, DRUMS, 99, 6, 64)])
    assert faults_of_notes(piece) == Faults(notes=5, duplicates=1, unplayable=2)
    total = faults_of_notes(piece) + faults_of_notes(piece)
    assert dataclasses.asdict(total) == dict(tokens=0, notes=10, invalid=0, reversals=0, duplicates=2, unplayable=4)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_model_that_knows_nothing_writes_no_fault(temperature):
    """By construction: the grammar masks the logits. Random weights, high temperature, ragged prompts."""
    generator = Generator(tiny_config(), parameters(tiny_config()), TOKENIZER)
    prompts = [TOKENIZER.encode(TOKENIZER.quantize(Piece.from_notes([(12 * n, 0, 60, 6, 64) for n in range(k)])))[:-1] for k in (1, 5)]
    found = generator.generate(prompts, max_events=120, sampling=SamplingConfig(temperature=temperature), stop_at_end=False, seed=1)
    for prompt, events in zip(prompts, found.continuations, strict=True):
        faults = faults_of_events(TOKENIZER, np.concatenate([prompt, events]))
        assert faults.tokens >= 5 * 120
        assert (faults.invalid, faults.reversals, faults.duplicates) == (0, 0, 0)
