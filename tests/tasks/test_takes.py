"""From a MIDI file to MIDI files: tracks that accompany and bars that are rewritten, from Python and from the command line."""

import json

import numpy as np
import pytest

import sage_jax
from sage_jax.errors import UserError
from sage_jax.music.notes import METER, TEMPO, Piece, note_array
from sage_jax.music.tracks import Track
from sage_jax.sample import rewrite
from tests.tasks.small import BASS, DRUM_SET, PIANO, PIANO_2, song
from tests.training.tiny import tiny_config
from tests.training.untrained import save_untrained

pytestmark = pytest.mark.usefixtures("quick_init", "shared_programs")
ROLES = dict(
    tokenizer=dict(tracks_per_program=2),
    representation=dict(name="roles"),
    data=dict(context_events=511),
    continuation=dict(num_samples=2, max_events=200, seed=3),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with roles, untrained."""
    folder = tmp_path_factory.mktemp("roles")
    save_untrained(tiny_config(**ROLES), folder)
    return sage_jax.load(folder)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A MIDI file of the song with notes off the model's grid, names, and two pianos."""
    piece = song()
    notes = piece.notes.copy()
    for field in ("onset", "duration"):
        notes[field] *= 40
    notes["onset"] += np.random.default_rng(1).integers(-9, 10, len(notes)) * (notes["onset"] > 0)
    tracks = tuple(zip((BASS, PIANO_2, PIANO, DRUM_SET), ("Low", "Left hand", "Right hand", "Kit"), strict=True))
    whole = Piece(
        note_array(notes), np.array([(0, 97.0)], TEMPO), np.array([(0, 4, 4)], METER), 480,
        tuple(Track(*track, name) for track, name in tracks),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("songs") / "song.mid"
    sage_jax.save_midi(whole, path)
    return path


def apart(piece, track, bars=None):
    """Rows of the notes of a track in bars (first and last, from 1), and of all others."""
    notes = piece.notes
    is_track = (notes["program"] == track[0]) & (notes["track"] == track[1])
    nearest = (notes["onset"] + 20) // 40  # on the model's grid
    inside = np.ones(len(notes), bool) if bars is None else (nearest >= (bars[0] - 1) * 48) & (nearest < bars[1] * 48)
    return notes[is_track & inside].tolist(), notes[~(is_track & inside)].tolist()


@pytest.mark.parametrize("lead", ["1bar", "0", "-0.5"])
def test_what_is_given_comes_back_note_for_note(model, file, tmp_path, lead):
    before = sage_jax.read_midi(file, 480)
    takes = model.accompany(file, own=[33], lead=lead)
    assert len(takes) == 2 and takes.prompt == before
    for path, take in zip(takes.save(tmp_path), takes, strict=True):
        saved = sage_jax.read_midi(path, 480)
        assert saved == take and [track.name for track in saved.tracks] == [track.name for track in before.tracks]
        mine, others = apart(saved, BASS)
        assert others == apart(before, BASS)[1] and mine != apart(before, BASS)[0]
        assert np.array_equal(saved.tempos, before.tempos)


def test_bars_of_one_of_two_pianos_are_rewritten(model, file):
    before = sage_jax.read_midi(file, 480)
    take = model.infill(file, "5-8", ["0:2"], num_samples=1)[0]
    assert apart(take, PIANO_2, (5, 8))[1] == apart(before, PIANO_2, (5, 8))[1]
    assert take != before
    again = model.infill(before, (5, 8), ["0:2"], num_samples=1)[0]
    assert again == take  # a piece as its file


def test_a_track_that_the_file_lacks_is_added(model, file):
    before = sage_jax.read_midi(file, 480)
    take = model.accompany(file, own="73,drums", bars="1-4", num_samples=1)[0]
    assert [track[:2] for track in take.tracks[:4]] == [track[:2] for track in before.tracks]
    added = take.notes[take.notes["program"] == 73]
    assert len(added) and set(added["track"].tolist()) == {0} and (added["onset"] < 4 * 4 * 480).all()


def test_a_model_with_roles_continues_as_any_other(model, file, tmp_path):
    takes = model.continue_(file, prompt_bars=4, bars=2, num_samples=1)
    assert (takes[0].notes["onset"] < 6 * 48).all() and takes.continuations.context_events > 4
    assert np.isfinite(model.score(file).bits_per_note)
    notes = [event.note.onset for event in model.stream(file, prompt_bars=4, bars=2) if event.note]
    assert all(4 * 48 <= onset < 6 * 48 for onset in notes)
    with model.session() as session:
        session.push([(0, 0, 60, 12, 64), (500, 33, 40, 12, 64)])  # ten bars later
        drawn = list(session.draw(until=12))
        assert session.piece.notes[:2]["onset"].tolist() == [0, 500] and all(event.tick >= 500 for event in drawn)


def test_files_of_the_command_line(model, file, tmp_path):
    rewrite(model, tmp_path / "out", str(file), "infill", None, "5-8", "1bar")
    about = json.loads((tmp_path / "out" / "takes.json").read_text())
    assert (about["task"], about["bars"], about["lead"]) == ("infill", "5-8", "span")
    assert {path.suffix for path in (tmp_path / "out").glob("take_1.*")} >= {".mid", ".png"}
    with pytest.raises(UserError, match="task is infill, which needs --bars"):
        rewrite(model, tmp_path / "none", str(file), "infill", None, None, "1bar")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, file: model.accompany(file, [33], lead="3bar"), "lead is '3bar', which no model is trained on"),
        (lambda model, file: model.infill(file, "5-40"), "bars are 5 to 40, and the piece has bars 1 to 13"),
        (lambda model, file: model.infill(file, "5-8", ["0:3"]), r"own has Acoustic Grand Piano \(0\), track 3; the model"),
        (lambda model, file: model.infill(file, "5-8", [40]), r"own has Violin \(40\), which the piece lacks"),
        (lambda model, file: model.infill(file, "5-8", ["0:x"]), "own has '0:x'; after the colon give the number"),
        (lambda model, file: model.accompany(file, [0, 33, "drums"]), "nothing is given"),
        (lambda model, file: sage_jax.load("sage-20m").infill(file, "5-8"), "the model knows no given notes"),
    ],
)
def test_mistakes_are_one_line(model, file, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(model, file)
    assert "\n" not in str(error.value)
