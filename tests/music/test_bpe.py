"""Byte-pair encoding loses nothing, merges nothing across a boundary, and its parts make up a whole."""

import functools
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.errors import UserError
from sage_jax.music.bpe import WITHIN, RemiBpe
from sage_jax.music.corpus import EMBEDDED
from sage_jax.music.events import NoteEvents
from sage_jax.music.excerpts import HEAD
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, TEMPO, Piece
from sage_jax.music.remi import BAR, BOS, DURATION, EOS, METER_OF, POSITION, PROGRAM, TEMPO_OF, Remi
from tests.music.pieces import pieces

FORMS = [(within, per_track, merges) for per_track in (False, True) for within in WITHIN for merges in (0, 50, 500)]
MERGED = [form for form in FORMS if form[2] == 500]


@functools.cache
def files() -> list[Piece]:
    return [RemiBpe().quantize(read_midi(path)) for path in sorted(EMBEDDED.rglob("*.mid"))[::9]]


@functools.cache
def learned(within: str, per_track: bool, merges: int) -> RemiBpe:
    return RemiBpe.learn(files(), merges=merges, within=within, per_track=per_track)


def tokens_of(representation: RemiBpe, steps: np.ndarray) -> np.ndarray:
    return representation.expand(steps[:, 0])[0]


@given(pieces(), st.sampled_from(FORMS))
@settings(max_examples=100)
def test_round_trip(piece, form):
    representation = learned(*form)
    quantized = representation.quantize(piece)
    steps = representation.encode(quantized)
    assert steps.dtype == np.int32 and steps.shape[1] == 1 and steps[0] == BOS and steps[-1] == EOS
    assert representation.decode(steps) == quantized
    assert representation.num_notes(steps).sum() == len(quantized.notes)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_round_trip_of_real_files(form):
    representation, plain = learned(*form), RemiBpe(per_track=form[1])
    assert representation.vocab_sizes == (716 + form[2],)
    lengths = np.zeros(2)
    for piece in files():
        steps, unmerged = representation.encode(piece), plain.encode(piece)
        assert representation.decode(steps) == piece
        assert np.array_equal(tokens_of(representation, steps), unmerged[:, 0])
        # The head is told alike whatever the merges.
        assert representation.head_length(steps) == HEAD and np.array_equal(steps[:HEAD], unmerged[:HEAD])
        lengths += len(steps), len(unmerged)
    assert lengths[0] <= {0: 1, 50: 0.8, 500: 0.6}[form[2]] * lengths[1]


@pytest.mark.parametrize("form", MERGED, ids=str)
def test_nothing_is_merged_across_a_boundary(form):
    within, per_track, _ = form
    representation = learned(*form)
    for piece in files()[:4]:
        steps = representation.encode(piece)
        tokens, offsets = representation.expand(steps[:, 0])
        assert np.isin(np.flatnonzero(representation.word_starts(tokens)), offsets).all()
        kind = representation.remi.kinds(tokens)
        value = tokens - representation.remi.starts[kind]
        meter = 0
        for begin, end in itertools.pairwise(offsets):
            kinds, values = kind[begin:end], value[begin:end]
            meter = values[kinds == METER_OF][-1] if METER_OF in kinds else meter
            assert end - begin == 1 or (tokens[begin:end] > EOS).all()
            assert BAR not in kinds[1:]
            if per_track:
                assert len(set(values[kinds == PROGRAM])) < 2 and not (TEMPO_OF in kinds and PROGRAM in kinds)
            if within == "note":
                assert (kinds == DURATION).sum() <= 1 and not (kinds[1:] == POSITION).any()
            if within == "beat":
                denominator = representation.grid.meters[meter][1]
                positions = [0] * (BAR in kinds) + values[kinds == POSITION].tolist()
                assert len({position * denominator // 48 for position in positions}) < 2
    longest = max(representation.spans.programs.sum(axis=1))
    assert longest > 1 if within != "note" and not per_track else longest == 1


def test_the_most_frequent_pairs_are_merged():
    """Two pitches by turns: first Velocity and Duration, which all notes share, then one of the two with its Program."""
    rows = [(12 * beat, 0, 60 + beat % 2, 12, 64) for beat in range(32)]
    piece = RemiBpe().quantize(Piece.from_notes(rows))
    representation = RemiBpe.learn([piece], merges=2, within="note")
    steps = representation.encode(piece)[:, 0]
    names = [[representation.remi.name(token) for token in representation.expand([number])[0]] for number in (716, 717)]
    assert names[0] == ["Velocity_65", "Duration_12"] and names[1] in (["Program_0", "Pitch_60"], ["Program_0", "Pitch_61"])
    assert representation.vocab_sizes == (718,) and [(steps == number).sum() for number in (716, 717)] == [32, 16]


def test_tracks_are_told_one_after_the_other():
    """The piece of `tests/music/test_remi.py`: bass, piano and drums in one bar, a tempo that changes in it."""
    rows = [(0, 0, 60, 12, 80), (0, 0, 64, 12, 80), (0, 33, 36, 24, 90), (0, DRUMS, 36, 1, 100), (12, DRUMS, 38, 1, 100),
            (24, 0, 67, 6, 70), (48, 33, 41, 12, 90)]  # fmt: skip
    piece = Piece.from_notes(rows, qpm=120)
    piece = Piece(piece.notes, np.array([(0, 120), (6, 90)], TEMPO), piece.meters)
    representation = RemiBpe(per_track=True)
    remi = representation.remi
    told = [remi.name(token) for token in representation.encode(representation.quantize(piece))[:, 0]]
    shown = [name for name in told if name.split("_")[0] in ("Bar", "Position", "Program", "Tempo")]
    assert [name.replace("_None", "") for name in shown if not name.startswith("Tempo")] == [
        "Bar", "Position_0", "Position_6", "Position_0", "Program_0", "Program_0", "Position_24", "Program_0",
        "Position_0", "Program_33", "Position_0", "Program_-1", "Position_12", "Program_-1", "Bar", "Position_0", "Program_33",
    ]  # fmt: skip
    assert [name.startswith("Tempo") for name in shown[:5]] == [False, False, True, False, True]


def test_what_is_no_stream_of_tracks_is_refused():
    representation = RemiBpe(per_track=True)
    remi = representation.remi
    rows = [(0, 0, 60, 12, 64), (12, 0, 62, 12, 64), (0, 33, 36, 12, 64)]
    steps = representation.encode(representation.quantize(Piece.from_notes(rows)))
    kind = remi.kinds(steps[:, 0])
    positions = np.flatnonzero(kind == POSITION)
    for place, change, message in (
        (positions[2], int(remi.starts[POSITION]), "does not go forward in its track"),
        (positions[3], None, "without a position of its own"),
        (positions[1], None, "Program may not follow Tempo"),
        (np.flatnonzero(kind == PROGRAM)[0], int(remi.starts[PROGRAM]) + 50, "or a track in its bar"),
    ):
        wrong = np.delete(steps, place, axis=0) if change is None else steps.copy()
        if change is not None:
            wrong[place] = change
        with pytest.raises(ValueError, match=message):
            representation.decode(wrong)
    assert len(representation.decode(steps[: positions[3] + 1]).notes) == 2
    with pytest.raises(ValueError, match="does not go forward"):
        Remi().decode(steps[:, 0])


@pytest.mark.parametrize("form", [*MERGED, FORMS[0], ("bar", True, 0)], ids=str)
@pytest.mark.parametrize("context", [64, 200])
def test_windows_foretell_every_step_once(form, context):
    representation = learned(*form)
    for piece in files()[1:6:2]:
        steps = representation.encode(piece)[:3000]
        told = [steps[:1]]
        for number, (window, first) in enumerate(representation.windows(steps, context)):
            assert len(window) <= context and (first == 1 if not number else context / 2 <= first <= context * 3 / 4)
            assert representation.remi.kinds(window[:HEAD, 0]).tolist() == [0, BAR, METER_OF, POSITION, TEMPO_OF]
            representation.decode(window)
            told.append(window[first:])
        assert np.array_equal(np.concatenate(told), steps)


@given(pieces(), st.sampled_from(FORMS), st.integers(40, 200))
@settings(max_examples=60)
def test_windows_of_any_piece(piece, form, context):
    representation = learned(*form)
    steps = representation.encode(representation.quantize(piece))
    told = [steps[:1]]
    for window, first in representation.windows(steps, context):
        assert len(window) <= context
        representation.decode(window)
        told.append(window[first:])
    assert np.array_equal(np.concatenate(told), steps)


@pytest.mark.parametrize("form", [*MERGED, FORMS[0], ("bar", True, 0)], ids=str)
def test_a_window_is_the_last_bars(form):
    """As if the piece had begun there: bar, meter and tempo are told anew, and the rest as it was."""
    representation = learned(*form)
    for piece in files()[:4]:
        steps = representation.encode(piece)[:-1]
        whole, bar = representation.window(steps, len(steps))
        assert bar == 0 and np.array_equal(whole, steps)
        for length in (150, 400):
            window, bar = representation.window(steps, length)
            assert 0 < len(window) <= length
            last = piece.bars.locate(piece.notes["onset"][-1:])[0][0] + 1
            expected = piece.slice_bars(bar, last)
            if len(expected.notes) == representation.num_notes(window).sum():
                assert np.array_equal(window, representation.encode(expected)[:-1])
                longer = representation.encode(piece.slice_bars(bar - 1, last))[:-1]
                assert len(longer) > length
            else:  # within its last bar
                assert bar == last - 1


@given(pieces(), st.sampled_from(FORMS), st.integers(20, 60), st.integers(2, 10**6))
@settings(max_examples=60)
def test_a_window_of_whatever_was_begun(piece, form, length, cut):
    """Cut anywhere: what the window ends with in tokens is what the steps end with, so that both can go on alike."""
    representation = learned(*form)
    steps = representation.encode(representation.quantize(piece))[:-1]
    steps = steps[: max(HEAD, cut % (len(steps) + 1))]
    window, bar = representation.window(steps, length)
    decoded, whole = representation.decode(window), representation.decode(steps)
    assert len(window) <= length and 0 <= bar < max((representation.spans.begins_bar[steps]).sum(), 1)
    count = len(decoded.notes)
    assert np.array_equal(decoded.notes["pitch"], whole.notes["pitch"][len(whole.notes) - count :]) or form[1]
    ends = tokens_of(representation, window)[HEAD:][-3:]
    assert np.array_equal(ends, tokens_of(representation, steps)[-len(ends) :] if len(ends) else ends)


def test_a_representation_is_told_and_kept(tmp_path):
    representation = learned("bar", False, 500)
    assert RemiBpe.from_dict(json.loads(json.dumps(representation.to_dict()))) == representation
    steps = representation.encode(files()[0])
    again = pickle.loads(pickle.dumps(representation))  # for worker processes, with tables made or not
    assert again == representation and np.array_equal(again.encode(files()[0]), steps)
    representation.save(tmp_path / "merges.json")
    loaded = RemiBpe.load(tmp_path / "merges.json")
    assert loaded == representation and np.array_equal(loaded.encode(files()[0]), steps)
    prints = {learned(*form).fingerprint for form in FORMS} | {RemiBpe(NoteEvents(num_velocities=8)).fingerprint}
    assert len(prints) == len(FORMS) + 1


def test_files_that_are_not_what_they_should_be(tmp_path):
    path = tmp_path / "merges.json"
    with pytest.raises(UserError, match="merges.json: No such file.*learn the merges"):
        RemiBpe.load(path)
    learned("beat", True, 50).save(path)
    with pytest.raises(UserError, match="merges.json was learned on another grid"):
        RemiBpe.load(path, NoteEvents(num_velocities=8))
    values = json.loads(path.read_text())
    shuffled = {**values, "merges": values["merges"][::-1]}
    changes = {
        "was changed": {**values, "within": "bar"},
        "no merge before it made|was changed": shuffled,
        "must be two ids": {**values, "merges": [[BOS, 20]]},
        "not remi_bpe": {**values, "representation": "octuple"},
        "holds no merges": {name: value for name, value in values.items() if name != "merges"},
    }
    for message, wrong in changes.items():
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=rf"merges.json.*({message}).*learn"):
            RemiBpe.load(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="merges.json holds no merges"):
        RemiBpe.load(path)


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"merges is 5000, but the pieces give only \d+; ask for at most"):
        RemiBpe.learn(files()[:1], merges=5000, within="note")
    with pytest.raises(UserError, match="within is 'song'; choose note, beat, bar"):
        RemiBpe(within="song")
    with pytest.raises(UserError, match="give 0 or more"):
        RemiBpe.learn(files()[:1], merges=-1)
    representation = learned("bar", False, 50)
    steps = representation.encode(files()[0])
    steps[17] = 766
    with pytest.raises(ValueError, match="step 17 has id 766, which is not among the 766"):
        representation.decode(steps)
    with pytest.raises(ValueError, match="no room for more than the past"):
        list(representation.windows(representation.encode(files()[0]), 8))
