"""Piano rolls: PNGs of the right size for all kinds of pieces, prompts, colours, lanes and beats."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, METER, TEMPO, Piece, note_array
from sage_jax.rendering import piano_roll
from sage_jax.rendering.piano_roll import draw_piano_roll, drum_rows, track_colours, unison_lanes
from tests.music.pieces import pieces

BAR = 48
CHORD = [(0, 0, 60, 24, 90), (0, 0, 64, 24, 60), (96, 33, 40, 12, 120), (300, 40, 76, 84, 30)]
BEAT = [(tick, DRUMS, 36 if tick % 24 == 0 else 42, 3, 100) for tick in range(0, 384, 12)]


def picture(tmp_path, piece, **options) -> np.ndarray:
    draw_piano_roll(piece, tmp_path / "roll.png", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["roll.png"]
    return imread(tmp_path / "roll.png")[..., :3]


def column(tick: int, end: int) -> int:
    """The pixel column of a tick."""
    return round(piano_roll.LEFT + tick * (piano_roll.WIDTH - piano_roll.LEFT - piano_roll.RIGHT) / end)


@pytest.mark.parametrize(
    "notes",
    [CHORD, BEAT, CHORD + BEAT, [], [(i * 12, i * 6, 30 + 4 * i, 30, 1 + 6 * i) for i in range(21)]],
    ids=["pitched", "drums alone", "both", "empty", "21 instruments"],
)
def test_every_kind_of_piece_can_be_drawn(tmp_path, notes):
    image = picture(tmp_path, Piece.from_notes(notes), prompt_end=4 * BAR, title="$x^ <&> \u97f3\u697d " + "long " * 40)
    assert image.shape == (700, 1600, 3)
    assert (image[:, :3] == 1).all() and (image[:, -3:] == 1).all(), "the drawing touches the border"


@settings(max_examples=15)
@given(pieces())
def test_any_piece_can_be_drawn(tmp_path_factory, piece):
    draw_piano_roll(piece, tmp_path_factory.getbasetemp() / "any.png", prompt_end=piece.end // 2)


def test_the_prompt_has_a_background_and_a_divider(tmp_path):
    end = 8 * BAR
    piece = Piece.from_notes(CHORD + BEAT)
    plain, divided = picture(tmp_path, piece), picture(tmp_path, piece, prompt_end=4 * BAR)
    divider = column(4 * BAR, end)
    rows = slice(piano_roll.TOP + 2, piano_roll.HEIGHT - piano_roll.BOTTOM - 2)
    dark = divided[rows, divider - 1 : divider + 2].max(axis=2).min(axis=1) < 0.4
    assert dark.mean() > 0.95, "the divider crosses all panels"
    assert (plain[rows, divider - 1 : divider + 2].max(axis=2).min(axis=1) < 0.4).mean() < 0.1
    changed = (np.abs(plain - divided).max(axis=2) > 0.01)[rows]
    assert changed[:, piano_roll.LEFT + 2 : divider - 2].mean() > 0.8, "the prompt has its own background"
    assert changed[:, divider + 3 : column(end, end) - 2].mean() == 0, "the continuation is drawn as without a prompt"
    assert np.array_equal(plain, picture(tmp_path, piece, prompt_end=0))


def test_louder_is_more_opaque(tmp_path):
    image = picture(tmp_path, Piece.from_notes([(0, 0, 60, BAR, 127), (BAR, 0, 60, BAR, 20)]))
    inside = image[:, [column(20, 96), column(BAR + 20, 96)]]
    darkest = inside[piano_roll.TOP + 5 : 640].mean(axis=2).min(axis=0)
    assert darkest[0] < darkest[1]


def test_colours_follow_the_first_onset_and_stay_in_continuations():
    prompt = Piece.from_notes([(0, 40, 70, 12, 80), (12, 0, 60, 12, 80)])
    longer = Piece.from_notes([*prompt.notes.tolist(), (24, 5, 50, 12, 80)])
    assert list(track_colours(prompt.notes)) == [(40, 0), (0, 0)]
    assert track_colours(prompt.notes).items() <= track_colours(longer.notes).items()
    many = track_colours(Piece.from_notes([(i, i, 60, 1, 1) for i in range(20)]).notes)
    assert len(set(many.values())) == 20


def test_tracks_of_a_program_have_colours_lanes_and_names_of_their_own(tmp_path):
    drums = [(0, DRUMS, 38, 12, 80, track) for track in range(2)]
    piece = Piece.from_notes([(0, 40, 60, 48, 80, track) for track in range(3)] + drums)
    named = dataclasses.replace(piece, tracks=tuple(track._replace(name="a $name$ " * 9) for track in piece.tracks))
    colours = track_colours(piece.notes[piece.notes["program"] == 40])
    assert len(set(colours.values())) == 3
    for roll in (picture(tmp_path, piece), picture(tmp_path, named)):
        legend = {tuple(pixel) for pixel in roll[:, piano_roll.WIDTH - piano_roll.RIGHT + 25].round(3)[:, :3].tolist()}
        inks = [to_rgb(colour) for colour in (*colours.values(), piano_roll.DRUM_INK)]
        assert all(np.abs(np.array(list(legend)) - ink).max(axis=1).min() < 0.01 for ink in inks)


def test_unison_notes_share_their_height():
    rows = [(0, 0, 60, 30, 80), (0, 0, 61, 12, 80), (0, 40, 60, 6, 80), (24, 40, 60, 12, 80), (36, 0, 60, 6, 80)]
    lane, lanes = unison_lanes(Piece.from_notes(rows).notes)
    assert lanes.tolist() == [2, 1, 2, 2, 1] and lane.tolist() == [0, 0, 1, 1, 0]


def test_drum_rows():
    rows = drum_rows(np.array([36, 42, 75, 35]))
    assert {name: chosen.tolist() for name, chosen in rows.items()} == {
        "Kick": [True, False, False, True],
        "Hi-hat": [False, True, False, False],
        "Percussion": [False, False, True, False],
    }


def test_beats_are_counted_from_their_bar():
    tempos, meters = np.array([(0, 120)], TEMPO), np.array([(0, 4, 4), (20, 3, 4), (56, 6, 8)], METER)
    piece = Piece(note_array([(0, 0, 60, 80, 90)]), tempos, meters)
    beats = piano_roll._beats(piece, piano_roll.TimeAxis.fit(piece, None))
    assert beats.tolist() == [0, 12, 20, 32, 44, 56, 62, 68, 74, 80, 86]


def test_same_piece_same_bytes(tmp_path):
    piece = Piece.from_notes(CHORD + BEAT)
    draw_piano_roll(piece, tmp_path / "a.png")
    draw_piano_roll(piece, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="roll.png") as caught:
        draw_piano_roll(Piece.from_notes(CHORD), tmp_path / "file" / "roll.png")
    assert "\n" not in str(caught.value)
