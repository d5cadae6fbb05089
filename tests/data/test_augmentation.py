"""Augmentation: crops stay valid events, and each change does what its name says and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.config import RunConfig
from sage_jax.data.augmentation import Augmentation, AugmentConfig
from sage_jax.data.crops import RandomCrop, Region
from sage_jax.data.pipeline import make_dataset
from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.pieces import pieces
from tests.training.tiny import tiny_config

TOKENIZER, FOUR_TRACKS = NoteEvents(), NoteEvents(tracks_per_program=4)
EVERYTHING = AugmentConfig(
    velocity_scale=(0.5, 1.5),
    velocity_offset=(-20, 20),
    tempo_scale=(0.5, 2.0),
    drop_instruments=0.5,
    exchange_programs=0.7,
    cut_start=0.5,
)


def encoded(piece: Piece, tokenizer: NoteEvents = TOKENIZER) -> np.ndarray:
    return tokenizer.encode(tokenizer.quantize(piece))


def crops(piece, config, count=40, context_events=64, transpose=(0, 0), ranges=None):
    """The decoded random crops of a piece."""
    crop, rng = (
        RandomCrop(TOKENIZER, context_events, transpose, Augmentation(config, TOKENIZER, ranges)),
        np.random.default_rng(0),
    )
    return [TOKENIZER.decode(crop(Region(encoded(piece), 0, 1), rng)) for _ in range(count)]


@settings(max_examples=30)
@given(pieces(max_notes=40), st.sampled_from([TOKENIZER, FOUR_TRACKS]), st.integers(5, 80), st.integers(0, 2**32 - 1))
def test_a_changed_crop_is_what_encoding_it_again_gives(piece, tokenizer, context_events, seed):
    crop = RandomCrop(tokenizer, context_events, (-5, 6), Augmentation(EVERYTHING, tokenizer))
    events = crop(Region(encoded(piece, tokenizer), 0, 1), np.random.default_rng(seed))
    assert len(events) <= context_events + 1
    again = tokenizer.encode(tokenizer.decode(events))[:-1].tolist()
    assert again == events[: tokenizer.sounding(events)[-1] + 1].tolist()  # but for rests at the end, and EOS


def test_all_tracks_of_a_program_are_exchanged_for_the_same_one_and_keep_to_its_range():
    """Two violins become two violas, each with the notes of its track."""
    piece = Piece.from_notes([(12 * n, program, 60 + 2 * track, 12, 64, track) for n in range(9) for program, track in
                              ((40, 0), (40, 1), (72, 0), (DRUMS, 1))])  # fmt: skip
    ranges = np.tile([0, 127], (DRUMS + 1, 1))
    ranges[40] = 58, 64
    augmentation = Augmentation(AugmentConfig(exchange_programs=1.0, keep_ranges=True), FOUR_TRACKS, ranges)
    events = encoded(piece, FOUR_TRACKS)
    assert augmentation.shifts(events) == (-2, 2)
    for seed in range(5):
        notes = FOUR_TRACKS.decode(augmentation(events, len(events), np.random.default_rng(seed))).notes
        found = {tuple(row) for row in notes[["program", "track", "pitch"]].tolist()}
        (violas,) = {program for program, track, pitch in found if program < 48}
        (winds,) = {program for program, track, pitch in found if 48 <= program < DRUMS}
        assert 41 <= violas < 48 and 73 <= winds < 80
        assert found == {(violas, 0, 60), (violas, 1, 62), (winds, 0, 60), (DRUMS, 1, 62)}


BAND = Piece.from_notes(
    [
        (48 * bar + 12 * beat, program, 60 + beat, 12, 64)
        for bar in range(8)
        for beat in range(4)
        for program in (0, 33, 48, DRUMS)
    ]
)


def test_whole_instruments_leave_and_later_music_takes_their_place():
    bands = {tuple(np.unique(piece.notes["program"]).tolist()) for piece in crops(BAND, AugmentConfig(drop_instruments=0.5))}
    assert {(0, 33, 48, DRUMS), (0, 33), (DRUMS,)} <= bands and () not in bands
    for piece in crops(BAND, AugmentConfig(drop_instruments=0.5)):
        for program in np.unique(piece.notes["program"]):
            onsets = piece.notes["onset"][piece.notes["program"] == program]
            np.testing.assert_array_equal(onsets, np.arange(len(onsets)) * 12)
    assert max(piece.num_bars for piece in crops(BAND, AugmentConfig(drop_instruments=0.5))) > 4


def test_programs_are_exchanged_within_their_family_and_stay_apart():
    two_pianos = Piece.from_notes([(12 * beat, program, 60, 12, 64) for beat in range(8) for program in (0, 1, DRUMS)])
    seen = set()
    for piece in crops(two_pianos, AugmentConfig(exchange_programs=0.6)):
        programs = tuple(np.unique(piece.notes["program"]).tolist())
        assert len(programs) == 3 and programs[-1] == DRUMS and max(programs[:2]) < 8
        seen.add(programs)
    assert len(seen) > 5 and (0, 1, DRUMS) in seen


def test_velocities_and_tempos_change_alike_for_the_whole_crop():
    config = AugmentConfig(velocity_scale=(0.5, 2.0), velocity_offset=(-10, 10), tempo_scale=(0.5, 2.0))
    loud = Piece.from_notes([(0, 0, 60, 12, 40), (12, 0, 62, 12, 40), (24, 0, 64, 12, 80)], qpm=100)
    found = crops(loud, config)
    for piece in found:
        soft, same, louder = piece.notes["velocity"].tolist()
        assert soft == same <= louder
    assert {piece.tempos["qpm"][0] > 100 for piece in found} == {True, False}
    assert {int(piece.notes["velocity"][0]) > 40 for piece in found} == {True, False}


def test_a_short_piece_begins_anywhere_in_its_first_half_if_its_start_is_cut():
    whole = {int(piece.notes["pitch"][0]) for piece in crops(BAND, AugmentConfig(velocity_offset=(0, 1)), context_events=200)}
    lengths = {piece.num_bars for piece in crops(BAND, AugmentConfig(cut_start=0.5), context_events=200)}
    assert whole == {60} and lengths == {5, 6, 7, 8}


def test_transposition_stays_within_what_each_instrument_plays():
    ranges = np.tile([0, 127], (DRUMS + 1, 1))
    ranges[33] = 59, 64
    found = crops(BAND, AugmentConfig(keep_ranges=True), transpose=(-5, 6), ranges=ranges)
    assert {int(piece.notes["pitch"][0]) for piece in found} == {59, 60, 61}
    assert {tuple(piece.notes["pitch"][piece.notes["program"] == DRUMS][:2]) for piece in found} == {(60, 61)}


def test_a_resumed_iterator_makes_the_same_changes(shards):
    arguments = dict(context_events=16, batch_size=2, seed=3, transpose=(-5, 6), augment=EVERYTHING)
    first = iter(make_dataset(shards, "train", TOKENIZER, **arguments))
    next(first)
    state = first.get_state()
    expected = [next(first)["events"] for _ in range(4)]
    second = iter(make_dataset(shards, "train", TOKENIZER, **arguments))
    second.set_state(state)
    np.testing.assert_array_equal(np.stack(expected), np.stack([next(second)["events"] for _ in range(4)]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("velocity_scale", (0.0, 1.0)), ("tempo_scale", (2.0, 1.0)), ("velocity_offset", (0, 200)), ("cut_start", 1.5)],
)
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=rf"config\.augment\.{field} is"):
        RunConfig.from_dict(tiny_config(augment={field: value}).to_dict())


def test_a_representation_refuses_what_its_tokens_cannot_hold():
    config = tiny_config(representation=dict(name="mmt"), model=dict(kv_sharing="mqa"), augment=dict(tempo_scale=(0.9, 1.1)))
    with pytest.raises(UserError, match=r"config\.augment\.tempo_scale is .* config\.representation\.name = mmt have no tempo"):
        RunConfig.from_dict(config.to_dict())
