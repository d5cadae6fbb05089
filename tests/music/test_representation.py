"""The ways to tell a piece, chosen by name."""

import dataclasses

import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.music.bpe import RemiBpe
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.representation import MERGES_FILE, RepresentationConfig, from_dict

GRID = NoteEvents()
PIECE = GRID.quantize(Piece.from_notes([(6 * n, (0, 33, DRUMS)[n % 3], 36 + n % 5, 6, 64) for n in range(96)]))
KINDS = [
    RepresentationConfig(),
    RepresentationConfig("remi"),
    RepresentationConfig("remi", merges=20),
    RepresentationConfig("remi", merges=10, within="note", per_track=True),
    RepresentationConfig("mmt", max_beats=64),
]


@pytest.mark.parametrize("config", KINDS, ids=lambda config: f"{config.name}-{config.merges}")
def test_each_is_made_kept_and_told_again(config, tmp_path):
    made = config.learn(GRID, [PIECE], tmp_path)
    assert made.vocab_sizes == config.vocab_sizes(GRID) and len(made.attributes) == len(made.vocab_sizes)
    assert config.learn(GRID, [], tmp_path) == made  # from the file, where there was something to learn
    assert from_dict(made.to_dict()) == made and from_dict(made.to_dict()).fingerprint == made.fingerprint
    told = made.quantize(PIECE)
    steps = made.encode(told)
    assert made.decode(steps) == told and made.num_notes(steps).sum() == len(told.notes)


def test_the_plain_one_is_note_events_itself(tmp_path):
    assert RepresentationConfig().learn(GRID, [], tmp_path) is GRID and not list(tmp_path.iterdir())


def test_the_room_of_a_crop_follows_from_its_events():
    rooms = [RepresentationConfig(name).steps(100) for name in ("events", "remi", "mmt")]
    assert rooms == [100, 500, 100] and RepresentationConfig("remi", steps_per_event=2.5).steps(100) == 250


def test_merges_of_other_settings_are_refused(tmp_path):
    RepresentationConfig("remi", merges=5).learn(GRID, [PIECE], tmp_path)
    for other in (dict(merges=6), dict(within="note"), dict(per_track=True)):
        config = dataclasses.replace(RepresentationConfig("remi", merges=5), **other)
        with pytest.raises(UserError, match=f"{MERGES_FILE} holds merges of other settings; delete it"):
            config.learn(GRID, [PIECE], tmp_path)
    with pytest.raises(UserError, match="learned on another grid"):
        RepresentationConfig("remi", merges=5).learn(NoteEvents(num_velocities=16), [PIECE], tmp_path)


def test_more_merges_than_the_music_has_are_refused(tmp_path):
    with pytest.raises(UserError, match="give only [0-9]+; ask for at most"):
        RepresentationConfig("remi", merges=5000).learn(GRID, [PIECE], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (dict(name="abc"), "name"),
        (dict(within="piece"), "within"),
        (dict(name="remi", merges=-1), "merges"),
        (dict(merges=10), "merges"),
        (dict(steps_per_event=20), "steps_per_event"),
    ],
)
def test_impossible_settings_are_refused_by_field(values, field):
    with pytest.raises(UserError, match=f"representation.{field}"):
        RepresentationConfig(**values)


def test_a_strange_vocabulary_is_refused():
    with pytest.raises(UserError, match="not one of NoteEvents"):
        from_dict({"tokenizer": "words"})
    assert isinstance(from_dict(RemiBpe(GRID).to_dict()), RemiBpe)
    assert np.array_equal(from_dict(GRID.to_dict()).encode(PIECE), GRID.encode(PIECE))
