"""Tokenizers by name."""

import dataclasses

import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.config import MERGES_FILE, RepresentationConfig, from_dict, retokenize
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents

GRID = NoteEvents()
PIECE = GRID.quantize(Piece.from_notes([(6 * n, (0, 33, DRUMS)[n % 3], 36 + n % 5, 6, 64) for n in range(96)]))
CONFIGS = [
    RepresentationConfig(),
    RepresentationConfig("remi"),
    RepresentationConfig("remi", merges=20),
    RepresentationConfig("remi", merges=10, merge_scope="note", per_track=True),
    RepresentationConfig("mmt", max_beats=64),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.merges}")
def test_a_tokenizer_is_made_saved_and_loaded(config, tmp_path):
    made = config.learn(GRID, [PIECE], tmp_path)
    assert made.vocab_sizes == config.vocab_sizes(GRID) and len(made.attributes) == len(made.vocab_sizes)
    assert config.learn(GRID, [], tmp_path) == made  # merges come from the file
    assert from_dict(made.to_dict()) == made and from_dict(made.to_dict()).fingerprint == made.fingerprint
    quantized = made.quantize(PIECE)
    steps = made.encode(quantized)
    assert made.decode(steps) == quantized and made.num_notes(steps).sum() == len(quantized.notes)


def test_the_default_tokenizer_is_the_grid_itself(tmp_path):
    assert RepresentationConfig().learn(GRID, [], tmp_path) is GRID and not list(tmp_path.iterdir())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.merges}")
def test_only_events_keep_the_tracks_of_a_program_apart(config, tmp_path):
    """Of shards that do. Their notes in unison are one note then."""
    grid = NoteEvents(tracks_per_program=4)
    piece = Piece.from_notes([(6 * n, 0, 36 + n % 5, 6, 64, track) for n in range(96) for track in range(2)])
    events = grid.encode(grid.quantize(piece))
    made = config.learn(grid, [GRID.quantize(piece)], tmp_path)
    found = made.decode(retokenize(events, grid, made))
    assert made.grid.tracks_per_program == (4 if config.name == "events" else 1)
    assert len(found.notes) == (192 if config.name == "events" else 96) and made.vocab_sizes == config.vocab_sizes(grid)


def test_remi_and_mmt_refuse_a_grid_that_keeps_tracks_apart():
    for make, name in ((RemiBpe, "remi"), (Mmt, "mmt")):
        with pytest.raises(UserError, match=f"tokenizer.tracks_per_program is 2; {name} needs 1"):
            make(NoteEvents(tracks_per_program=2))


def test_the_capacity_of_a_crop_follows_from_its_events():
    capacities = [RepresentationConfig(name).steps(100) for name in ("events", "remi", "mmt")]
    assert capacities == [100, 500, 100] and RepresentationConfig("remi", steps_per_event=2.5).steps(100) == 250


def test_merges_of_other_settings_are_refused(tmp_path):
    RepresentationConfig("remi", merges=5).learn(GRID, [PIECE], tmp_path)
    for other in (dict(merges=6), dict(merge_scope="note"), dict(per_track=True)):
        config = dataclasses.replace(RepresentationConfig("remi", merges=5), **other)
        with pytest.raises(UserError, match=f"{MERGES_FILE} holds merges of other settings; delete it"):
            config.learn(GRID, [PIECE], tmp_path)
    with pytest.raises(UserError, match="learned on another grid"):
        RepresentationConfig("remi", merges=5).learn(NoteEvents(num_velocities=16), [PIECE], tmp_path)


def test_more_merges_than_the_pieces_have_are_refused(tmp_path):
    with pytest.raises(UserError, match="give only [0-9]+; use at most"):
        RepresentationConfig("remi", merges=5000).learn(GRID, [PIECE], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (dict(name="abc"), "name"),
        (dict(merge_scope="piece"), "merge_scope"),
        (dict(name="remi", merges=-1), "merges"),
        (dict(merges=10), "merges"),
        (dict(steps_per_event=20), "steps_per_event"),
    ],
)
def test_invalid_settings_are_refused_by_field(values, field):
    with pytest.raises(UserError, match=f"representation.{field}"):
        RepresentationConfig(**values)


@pytest.mark.parametrize(("name", "message"), [("leads", "the leads None"), ("late_notes", "lengths of a player's notes")])
def test_events_in_roles_of_another_version_are_refused(name, message):
    """What a late lead gives is no part of the vocabulary's sizes, but a model trained on something else."""
    values = RoleEvents.of(GRID).to_dict()
    assert from_dict(values) == RoleEvents.of(GRID)
    del values[name]
    with pytest.raises(UserError, match=f"{message}.*train again"):
        from_dict(values)


def test_from_dict_refuses_an_unknown_tokenizer():
    with pytest.raises(UserError, match="not one of NoteEvents"):
        from_dict({"tokenizer": "words"})
    assert isinstance(from_dict(RemiBpe(GRID).to_dict()), RemiBpe)
    assert np.array_equal(from_dict(GRID.to_dict()).encode(PIECE), GRID.encode(PIECE))
