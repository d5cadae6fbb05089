"""Crops: random crops are transposed bars of a piece; sequential crops cover a piece."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.data.crops import CropSource, RandomCrop, Region, Retokenize, SequentialCrops, split_at_bars
from sage_jax.data.rows import PackingStats, PadRow
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import BOS, EOS, ONSET, PAD, NoteEvents
from tests.music.midi_files import random_piece
from tests.music.pieces import pieces

TOKENIZER = NoteEvents()
FIELDS = ["program", "pitch", "duration", "velocity"]


def encoded(piece: Piece) -> np.ndarray:
    return TOKENIZER.encode(TOKENIZER.quantize(piece))


@settings(max_examples=30)
@given(pieces(max_notes=60), st.integers(5, 80), st.integers(0, 2**32 - 1))
def test_a_random_crop_is_consecutive_bars_transposed(piece, context_events, seed):
    events, rng = encoded(piece), np.random.default_rng(seed)
    piece = TOKENIZER.decode(events)
    crop = PadRow(context_events, 5)([RandomCrop(TOKENIZER, context_events, (-5, 6))(Region(events, 0, 1), rng)])["events"]
    assert crop.shape == (context_events + 1, 5) and crop.dtype == np.int32
    length = int((crop[:, ONSET] != PAD).sum())
    assert (crop[:length] != PAD).all() and (crop[length:] == PAD).all() and (crop[0] == BOS).all()
    assert (crop[length - 1, ONSET] == EOS) or length == context_events + 1  # padding only follows the end of the piece
    # The notes are those from some bar on: drums unchanged, all others transposed by the same interval.
    notes = TOKENIZER.decode(crop).notes
    matches = []
    lines = piece.bars.start(np.arange(piece.num_bars + 1))
    first = notes["onset"][0] if len(notes) else 0
    for bar in np.flatnonzero(np.isin(lines + first, piece.notes["onset"])) if len(notes) else [0]:
        original = piece.slice_bars(int(bar), 10**6).notes[: len(notes)]
        if len(original) == len(notes) and (original["onset"] == notes["onset"]).all():
            moved = (notes["pitch"] - original["pitch"])[notes["program"] != DRUMS]
            same_drums = (notes["pitch"] == original["pitch"])[notes["program"] == DRUMS].all()
            same = all((notes[field] == original[field]).all() for field in ("program", "duration", "velocity"))
            matches.append(same and same_drums and len(set(moved.tolist())) <= 1 and all(-5 <= step <= 6 for step in moved))
    assert any(matches)


def test_transposition_keeps_notes_within_the_midi_range():
    piece = Piece.from_notes([(0, 0, 1, 12, 64), (12, 0, 125, 12, 64), (12, DRUMS, 127, 12, 64)])
    crop, rng = RandomCrop(TOKENIZER, 16, (-5, 6)), np.random.default_rng(0)
    pitches = [TOKENIZER.decode(crop(Region(encoded(piece), 0, 1), rng)).notes["pitch"] for _ in range(100)]
    assert {tuple(row - row[0]) for row in np.stack(pitches)[:, [0, 1]]} == {(0, 124)}
    assert {int(row[0]) for row in pitches} == {0, 1, 2, 3} and {int(row[2]) for row in pitches} == {127}


def test_regions_are_proportional_to_length_and_every_bar_is_drawn(monkeypatch):
    class Shards(list):
        lengths = property(lambda self: np.array([len(events) for events in self]))

    long, short = encoded(random_piece(0, 400)), encoded(random_piece(1, 40))
    source = CropSource(Shards([long, short]), 32)
    regions = [source[item] for item in range(len(source))]
    counts = [sum(region.events is events for region in regions) for events in (long, short)]
    assert counts == [-(-len(long) // 32), -(-len(short) // 32)]
    assert [(region.index, region.count) for region in regions[: counts[0]]] == [(i, counts[0]) for i in range(counts[0])]

    seen, rng, crop = set(), np.random.default_rng(0), NoteEvents.crop
    monkeypatch.setattr(NoteEvents, "crop", lambda self, events, start, n: seen.add(start) or crop(self, events, start, n))
    for region in regions[: counts[0]] * 40:
        RandomCrop(TOKENIZER, 32, (0, 0))(region, rng)
    bars = TOKENIZER.bar_starts(long)
    assert seen == {int(bar) for bar in bars if bar <= min(bars[bars + 30 >= len(long)])}


@settings(max_examples=60)
@given(pieces(max_notes=60), st.integers(2, 60))
def test_split_at_bars_covers_the_piece_once(piece, max_events):
    events = encoded(piece)
    if not len(piece.notes):
        return
    places = list(split_at_bars(TOKENIZER, events, max_events))
    assert places[0][0] == TOKENIZER.bar_starts(events)[0] == 1 and places[-1][1] == len(events)
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(places))
    crops = [TOKENIZER.crop(events[:stop], start, max_events + 3) for start, stop in places]
    notes = np.concatenate([TOKENIZER.decode(crop).notes for crop in crops])
    expected = TOKENIZER.decode(events).notes
    assert all(np.array_equal(notes[field], expected[field]) for field in FIELDS)
    assert [int((crop[:, ONSET] == EOS).sum()) for crop in crops] == [0] * (len(crops) - 1) + [1]


def test_split_at_bars_splits_only_bars_that_are_too_long():
    quarters = [(12 * index, 0, 60, 12, 64) for index in range(32)]
    events = encoded(Piece.from_notes(quarters))
    starts = [start for start, _ in split_at_bars(TOKENIZER, events, 10)]
    assert set(starts) < set(TOKENIZER.bar_starts(events).tolist())
    crowd = [(6 * (pitch // 40), 0, pitch, 12, 64) for pitch in range(128)]
    starts = [start for start, _ in split_at_bars(TOKENIZER, encoded(Piece.from_notes(crowd)), 50)]
    assert starts == [1, 51, 101]


@pytest.mark.parametrize("transpose", [(0, 0), (-2, 0), (0, 3)])
def test_transpositions_cover_the_configured_range(transpose):
    events, rng = encoded(random_piece(0)), np.random.default_rng(0)
    lowest = TOKENIZER.pitch_range(events)[0]
    crop = RandomCrop(TOKENIZER, len(events), transpose)
    drawn = {TOKENIZER.pitch_range(crop(Region(events, 0, 1), rng))[0] - lowest for _ in range(50)}
    assert drawn == set(range(transpose[0], transpose[1] + 1))


class OnePiece(list):
    """Shards of pieces in memory."""


@pytest.mark.parametrize("tokenizer", [RemiBpe(), Mmt()], ids=["remi", "mmt"])
def test_retokenized_crops_have_the_same_notes(tokenizer):
    """Those of a random crop, and those of all sequential crops of a piece, each once, for any capacity."""
    events = encoded(random_piece(0, 400))
    whole = tokenizer.quantize(TOKENIZER.decode(events)).notes
    for num_steps in (480, 120, 60):
        retokenizer, pad = Retokenize(TOKENIZER, tokenizer), PadRow(num_steps, len(tokenizer.attributes))
        source = SequentialCrops(OnePiece([events]), TOKENIZER, 96, 4, retokenizer=retokenizer, num_steps=num_steps)
        rows = [pad(source[item])["events"] for item in range(len(source))]
        assert all(steps.shape == (num_steps + 1, len(tokenizer.attributes)) for steps in rows) and len(rows) % 4 == 0
        assert sum(int(tokenizer.num_notes(steps).sum()) for steps in rows) == len(whole)
        lengths = [int((steps[:, 0] != PAD).sum()) for steps in rows]
        ended = [(steps[:, 0] == EOS).any() for steps in rows]
        assert max(lengths) <= num_steps and sum(ended) == 1
    crop = RandomCrop(TOKENIZER, 96, (-5, 6))(Region(events, 0, 1), np.random.default_rng(0))
    steps = Retokenize(TOKENIZER, tokenizer)(crop)
    assert np.array_equal(tokenizer.decode(steps).notes, tokenizer.quantize(TOKENIZER.decode(crop)).notes)


def test_steps_beyond_the_capacity_are_counted():
    events = encoded(random_piece(0, 400))
    crop = RandomCrop(TOKENIZER, 96, (0, 0))(Region(events, 0, 1), np.random.default_rng(0))
    steps, tally = Retokenize(TOKENIZER, RemiBpe())(crop), PackingStats()
    PadRow(600, 1, tally)([steps])
    assert (tally.steps, tally.cut, tally.capacity) == (len(steps), 0, 601)
    row = PadRow(99, 1, tally)([steps[:60], steps])["events"]
    assert np.array_equal(row, np.concatenate([steps[:60], steps[:40]]))
    assert (tally.steps, tally.cut, tally.capacity) == (2 * len(steps) + 60, len(steps) - 40, 701)
