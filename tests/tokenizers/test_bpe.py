"""RemiBpe is lossless after quantization, merges within its scope, and scores every step once in its windows."""

import functools
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_jax.corpus.sources import EMBEDDED
from sage_jax.errors import UserError
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import DRUMS, TEMPO, Piece
from sage_jax.tokenizers.bpe import WITHIN, RemiBpe
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.remi import BAR, BOS, DURATION, EOS, METER_OF, POSITION, PROGRAM, TEMPO_OF, Remi
from sage_jax.tokenizers.remi_windows import HEAD
from tests.music.pieces import pieces

FORMS = [(within, per_track, merges) for per_track in (False, True) for within in WITHIN for merges in (0, 50, 500)]
MERGED = [form for form in FORMS if form[2] == 500]


@functools.cache
def files() -> list[Piece]:
    return [RemiBpe().quantize(read_midi(path)) for path in sorted(EMBEDDED.rglob("*.mid"))[::9]]


@functools.cache
def learned(within: str, per_track: bool, merges: int) -> RemiBpe:
    return RemiBpe.learn(files(), merges=merges, within=within, per_track=per_track)


def tokens_of(tokenizer: RemiBpe, steps: np.ndarray) -> np.ndarray:
    return tokenizer.expand(steps[:, 0])[0]


@given(pieces(), st.sampled_from(FORMS))
@settings(max_examples=72)  # four of each form
def test_round_trip(piece, form):
    tokenizer = learned(*form)
    quantized = tokenizer.quantize(piece)
    steps = tokenizer.encode(quantized)
    assert steps.dtype == np.int32 and steps.shape[1] == 1 and steps[0] == BOS and steps[-1] == EOS
    assert tokenizer.decode(steps) == quantized
    assert tokenizer.num_notes(steps).sum() == len(quantized.notes)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_round_trip_of_real_files(form):
    tokenizer, plain = learned(*form), RemiBpe(per_track=form[1])
    assert tokenizer.vocab_sizes == (716 + form[2],)
    lengths = np.zeros(2)
    for piece in files():
        steps, unmerged = tokenizer.encode(piece), plain.encode(piece)
        assert tokenizer.decode(steps) == piece
        assert np.array_equal(tokens_of(tokenizer, steps), unmerged[:, 0])
        # The head is the same with and without merges.
        assert tokenizer.head_length(steps) == HEAD and np.array_equal(steps[:HEAD], unmerged[:HEAD])
        lengths += len(steps), len(unmerged)
    assert lengths[0] <= {0: 1, 50: 0.8, 500: 0.6}[form[2]] * lengths[1]


@pytest.mark.parametrize("form", MERGED, ids=str)
def test_merges_stay_within_their_scope(form):
    within, per_track, _ = form
    tokenizer = learned(*form)
    for piece in files()[:2]:
        steps = tokenizer.encode(piece)
        tokens, offsets = tokenizer.expand(steps[:, 0])
        assert np.isin(np.flatnonzero(tokenizer.word_starts(tokens)), offsets).all()
        kind = tokenizer.remi.kinds(tokens)
        value = tokens - tokenizer.remi.starts[kind]
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
                denominator = tokenizer.grid.meters[meter][1]
                positions = [0] * (BAR in kinds) + values[kinds == POSITION].tolist()
                assert len({position * denominator // 48 for position in positions}) < 2
    longest = max(tokenizer.spans.programs.sum(axis=1))
    assert longest > 1 if within != "note" and not per_track else longest == 1


def test_the_most_frequent_pairs_are_merged():
    """Two alternating pitches: first Velocity and Duration, which all notes share, then Program and one of the pitches."""
    rows = [(12 * beat, 0, 60 + beat % 2, 12, 64) for beat in range(32)]
    piece = RemiBpe().quantize(Piece.from_notes(rows))
    tokenizer = RemiBpe.learn([piece], merges=2, within="note")
    steps = tokenizer.encode(piece)[:, 0]
    names = [[tokenizer.remi.name(token) for token in tokenizer.expand([number])[0]] for number in (716, 717)]
    assert names[0] == ["Velocity_65", "Duration_12"] and names[1] in (["Program_0", "Pitch_60"], ["Program_0", "Pitch_61"])
    assert tokenizer.vocab_sizes == (718,) and [(steps == number).sum() for number in (716, 717)] == [32, 16]


def test_bars_are_grouped_by_track():
    """Piano, bass and drums in one bar, in which the tempo changes."""
    rows = [(0, 0, 60, 12, 80), (0, 0, 64, 12, 80), (0, 33, 36, 24, 90), (0, DRUMS, 36, 1, 100), (12, DRUMS, 38, 1, 100),
            (24, 0, 67, 6, 70), (48, 33, 41, 12, 90)]  # fmt: skip
    piece = Piece.from_notes(rows, qpm=120)
    piece = Piece(piece.notes, np.array([(0, 120), (6, 90)], TEMPO), piece.meters)
    tokenizer = RemiBpe(per_track=True)
    remi = tokenizer.remi
    names = [remi.name(token) for token in tokenizer.encode(tokenizer.quantize(piece))[:, 0]]
    shown = [name for name in names if name.split("_")[0] in ("Bar", "Position", "Program", "Tempo")]
    assert [name.replace("_None", "") for name in shown if not name.startswith("Tempo")] == [
        "Bar", "Position_0", "Position_6", "Position_0", "Program_0", "Program_0", "Position_24", "Program_0",
        "Position_0", "Program_33", "Position_0", "Program_-1", "Position_12", "Program_-1", "Bar", "Position_0", "Program_33",
    ]  # fmt: skip
    assert [name.startswith("Tempo") for name in shown[:5]] == [False, False, True, False, True]


def test_decode_refuses_an_invalid_stream_of_tracks():
    tokenizer = RemiBpe(per_track=True)
    remi = tokenizer.remi
    rows = [(0, 0, 60, 12, 64), (12, 0, 62, 12, 64), (0, 33, 36, 12, 64)]
    steps = tokenizer.encode(tokenizer.quantize(Piece.from_notes(rows)))
    kind = remi.kinds(steps[:, 0])
    positions = np.flatnonzero(kind == POSITION)
    for place, change, message in (
        (positions[2], int(remi.starts[POSITION]), "does not increase in its track"),
        (positions[3], None, "without a position of its own"),
        (positions[1], None, "Program may not follow Tempo"),
        (np.flatnonzero(kind == PROGRAM)[0], int(remi.starts[PROGRAM]) + 50, "or a track in its bar"),
    ):
        wrong = np.delete(steps, place, axis=0) if change is None else steps.copy()
        if change is not None:
            wrong[place] = change
        with pytest.raises(ValueError, match=message):
            tokenizer.decode(wrong)
    assert len(tokenizer.decode(steps[: positions[3] + 1]).notes) == 2
    with pytest.raises(ValueError, match="does not increase"):
        Remi().decode(steps[:, 0])


@pytest.mark.parametrize("form", [*MERGED, FORMS[0], ("bar", True, 0)], ids=str)
@pytest.mark.parametrize("context", [64, 200])
def test_windows_score_every_step_once(form, context):
    tokenizer = learned(*form)
    for piece in files()[1:4:2]:
        steps = tokenizer.encode(piece)[:800]
        scored = [steps[:1]]
        for number, (window, first) in enumerate(tokenizer.windows(steps, context)):
            assert len(window) <= context and (first == 1 if not number else context / 2 <= first <= context * 3 / 4)
            assert tokenizer.remi.kinds(window[:HEAD, 0]).tolist() == [0, BAR, METER_OF, POSITION, TEMPO_OF]
            tokenizer.decode(window)
            scored.append(window[first:])
        assert np.array_equal(np.concatenate(scored), steps)


@given(pieces(), st.sampled_from(FORMS), st.integers(40, 200))
@settings(max_examples=30)
def test_windows_of_any_piece(piece, form, context):
    tokenizer = learned(*form)
    steps = tokenizer.encode(tokenizer.quantize(piece))
    scored = [steps[:1]]
    for window, first in tokenizer.windows(steps, context):
        assert len(window) <= context
        tokenizer.decode(window)
        scored.append(window[first:])
    assert np.array_equal(np.concatenate(scored), steps)


@pytest.mark.parametrize("form", [*MERGED, FORMS[0], ("bar", True, 0)], ids=str)
def test_a_window_is_the_last_bars(form):
    """It equals the encoding of a piece that begins there."""
    tokenizer = learned(*form)
    for piece in files()[:4]:
        steps = tokenizer.encode(piece)[:-1]
        whole, bar = tokenizer.window(steps, len(steps))
        assert bar == 0 and np.array_equal(whole, steps)
        for length in (150, 400):
            window, bar = tokenizer.window(steps, length)
            assert 0 < len(window) <= length
            last = piece.bars.locate(piece.notes["onset"][-1:])[0][0] + 1
            expected = piece.slice_bars(bar, last)
            if len(expected.notes) == tokenizer.num_notes(window).sum():
                assert np.array_equal(window, tokenizer.encode(expected)[:-1])
                longer = tokenizer.encode(piece.slice_bars(bar - 1, last))[:-1]
                assert len(longer) > length
            else:  # a part of the last bar
                assert bar == last - 1


@given(pieces(), st.sampled_from(FORMS), st.integers(20, 60), st.integers(2, 10**6))
@settings(max_examples=60)
def test_a_window_of_any_prefix_ends_with_its_tokens(piece, form, length, cut):
    """So the window and the prefix have the same continuations, also if the prefix ends inside a note."""
    tokenizer = learned(*form)
    steps = tokenizer.encode(tokenizer.quantize(piece))[:-1]
    steps = steps[: max(HEAD, cut % (len(steps) + 1))]
    window, bar = tokenizer.window(steps, length)
    decoded, whole = tokenizer.decode(window), tokenizer.decode(steps)
    assert len(window) <= length and 0 <= bar < max((tokenizer.spans.begins_bar[steps]).sum(), 1)
    count = len(decoded.notes)
    assert np.array_equal(decoded.notes["pitch"], whole.notes["pitch"][len(whole.notes) - count :]) or form[1]
    ends = tokens_of(tokenizer, window)[HEAD:][-3:]
    assert np.array_equal(ends, tokens_of(tokenizer, steps)[-len(ends) :] if len(ends) else ends)


def test_settings_and_files_round_trip(tmp_path):
    tokenizer = learned("bar", False, 500)
    assert RemiBpe.from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer
    steps = tokenizer.encode(files()[0])
    again = pickle.loads(pickle.dumps(tokenizer))  # for worker processes
    assert again == tokenizer and np.array_equal(again.encode(files()[0]), steps)
    tokenizer.save(tmp_path / "merges.json")
    loaded = RemiBpe.load(tmp_path / "merges.json")
    assert loaded == tokenizer and np.array_equal(loaded.encode(files()[0]), steps)
    prints = {learned(*form).fingerprint for form in FORMS} | {RemiBpe(NoteEvents(num_velocities=8)).fingerprint}
    assert len(prints) == len(FORMS) + 1


def test_user_errors_for_unusable_files(tmp_path):
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
        "holds no readable merges": {name: value for name, value in values.items() if name != "merges"},
    }
    for message, wrong in changes.items():
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=rf"merges.json.*({message}).*learn"):
            RemiBpe.load(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="merges.json holds no readable merges"):
        RemiBpe.load(path)


def test_mistakes_raise_errors():
    with pytest.raises(UserError, match=r"merges is 5000, but the pieces give only \d+; use at most"):
        RemiBpe.learn(files()[:1], merges=5000, within="note")
    with pytest.raises(UserError, match="within is 'song'; choose note, beat, bar"):
        RemiBpe(within="song")
    with pytest.raises(UserError, match="give 0 or more"):
        RemiBpe.learn(files()[:1], merges=-1)
    tokenizer = learned("bar", False, 50)
    steps = tokenizer.encode(files()[0])
    steps[17] = 766
    with pytest.raises(ValueError, match="step 17 has id 766, which is not among the 766"):
        tokenizer.decode(steps)
    with pytest.raises(ValueError, match="a context of 8 is too short"):
        list(tokenizer.windows(tokenizer.encode(files()[0]), 8))
