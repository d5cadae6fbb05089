"""MIDI in, MIDI out: preprocess, train, load, continue, score, save, and the messages for mistakes."""

import functools
import json
import os
import shutil
import subprocess
import sys
import wave

import numpy as np
import pytest

from sage_jax.api import load
from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.errors import UserError
from sage_jax.music.instruments import programs_in
from sage_jax.music.midi import read_midi, save_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.sample import sample
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.loop import train
from tests.music import smf
from tests.music.midi_files import write_pieces
from tests.training.tiny import tiny_config
from tests.training.untrained import save_untrained

pytestmark = pytest.mark.usefixtures("quick_init", "shared_programs")
TAKES = dict(num_samples=2, prompt_bars=2, num_bars=3, max_events=60, seed=11)


@pytest.fixture(scope="module")
def config() -> dict:
    return tiny_config(data=dict(context_events=32), train=dict(steps=2), continuation=TAKES)


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A run of two steps on a folder of somebody's own MIDI files."""
    folder = tmp_path_factory.mktemp("mine")
    write_pieces(folder, 6)
    preprocess(f"folder:{folder}", folder / "run" / "data", NoteEvents(), PreprocessConfig(workers=1), show_progress=False)
    result = train(config, folder / "run")
    assert result["step"] == 2 and np.isfinite(result["valid"]["loss"])
    return folder / "run"


loaded = functools.cache(load)  # one model for most tests: what it has compiled, it keeps


def play(workdir, output, prompt=None, instruments=None, **settings):
    """Takes of the run in `workdir`; settings: sections of configs/sampling.py."""
    model = load(workdir, settings=settings) if settings else loaded(workdir)
    return sample(model, output, prompt and str(prompt), instruments)


@pytest.fixture(scope="module")
def takes(workdir):
    """Two takes of more events than the model's context holds."""
    return play(workdir, workdir / "takes", workdir.parent / "piece00.mid")


def test_takes_continue_the_prompt(takes, workdir):
    prompt = read_midi(workdir / "takes" / "prompt.mid")
    tokenizer = NoteEvents()
    for number, piece in enumerate(takes.pieces, 1):
        written = read_midi(workdir / "takes" / f"take_{number}.mid")
        assert np.array_equal(tokenizer.quantize(written).notes, tokenizer.quantize(piece).notes)
        before = piece.notes[piece.notes["onset"] < takes.continuations.prompt_end]
        assert np.array_equal(before, prompt.notes)
        bars = piece.bars.locate(piece.notes["onset"][len(before) :])[0]
        assert len(bars) == takes.continuations.notes[number - 1] > 0
        assert bars.min() >= 2 and bars.max() < 5
    assert not np.array_equal(takes.pieces[0].notes, takes.pieces[1].notes)


def test_bars_and_tempo_of_a_prompt_are_those_of_its_file_and_changes_are_shown(config, workdir, tmp_path, capsys):
    """11/4 at 100 quarters per minute, neither of which the vocabulary has, and a hit without length."""
    events = [event for beat in range(66) for event in smf.note(beat * smf.QUARTER, smf.QUARTER, 60 + beat % 5)]
    hit = [smf.on(smf.QUARTER, 36, 100, 9), smf.off(smf.QUARTER, 36, 9)]
    path = tmp_path / "balkan.mid"
    conductor = smf.track(smf.tempo(0, 100), smf.meter(0, 11, 4), events)
    path.write_bytes(smf.smf(smf.track(smf.meta(0, 0x59)), conductor, smf.track(hit)))
    takes = play(workdir, tmp_path / "takes", path)
    bars = config.continuation.prompt_bars
    assert takes.continuations.prompt_end == 12 * 11 * bars
    for name, piece in [("prompt", None), *((f"take_{number}", piece) for number, piece in enumerate(takes.pieces, 1))]:
        written = read_midi(tmp_path / "takes" / f"{name}.mid")
        assert written.tempos[0].tolist() == (0, 100.0)
        assert written.meters[["numerator", "denominator"]][:2].tolist() == [(6, 4), (5, 4)]
        assert piece is None or np.array_equal(piece.tempos[piece.tempos["tick"] < piece.end], written.tempos)
    about = json.loads((tmp_path / "takes" / "takes.json").read_text())
    assert about["prompt_bars"] == bars
    changed = "\n".join(about["changed"])
    assert "prompt: meters: 1, 0 merged, 1 split into shorter bars" in changed and "1 without a length" in changed
    assert "file: oddities: 1 meta events of a wrong length" in changed and "prompt: tempos:" in changed
    printed = capsys.readouterr().out
    assert f"{bars} bars" in printed and "split into shorter bars" in printed


def test_a_file_that_cannot_be_a_prompt_costs_one_line(config, workdir, tmp_path):
    (tmp_path / "cut.mid").write_bytes(smf.smf(smf.track(smf.scale()))[:-9])
    with pytest.raises(UserError, match=r"cut\.mid can't be read as MIDI: track 1 is cut short; save it again"):
        play(workdir, tmp_path / "takes", tmp_path / "cut.mid")
    assert not (tmp_path / "takes" / "takes.json").exists()


def test_every_take_can_be_seen_and_heard(takes, workdir):
    folder = workdir / "takes"
    about = json.loads((folder / "takes.json").read_text())
    assert about["step"] == 2 and about["notes_per_second"] > 0 and about["valid_nats_per_note"] > 0
    for number, row in enumerate(about["takes"], 1):
        assert (folder / f"take_{number}.png").read_bytes().startswith(b"\x89PNG")
        if "no_wav" in row:  # no synthesiser is installed: the rest goes on, and the row says so
            assert ".[audio]" in row["no_wav"]
        else:
            with wave.open(str(folder / f"take_{number}.wav")) as file:
                assert file.getnframes() / file.getframerate() >= row["seconds"] - 0.1
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_the_same_seed_gives_the_same_takes(config, takes, workdir, tmp_path):
    again = sample(load(workdir), tmp_path, str(workdir.parent / "piece00.mid"))
    assert again.pieces == takes.pieces


@pytest.mark.parametrize(
    "system",
    [
        dict(model=dict(architecture="nested", kv_sharing="mqa")),
        dict(model=dict(kv_sharing="mqa"), representation=dict(name="remi", merges=15)),
    ],
    ids=["nested", "bpe"],
)
def test_the_other_systems_continue_a_prompt(system, workdir, tmp_path):
    """Of the two, the one with learned merges is trained first; tests/study/test_study.py trains nested models."""
    shards = dict(context_events=32, shards=str(workdir / "data"))
    config = tiny_config(data=shards, train=dict(steps=2), continuation=TAKES, **system)
    if "representation" in system:
        assert np.isfinite(train(config, tmp_path)["valid"]["loss"])
    else:
        save_untrained(config, tmp_path)
    takes = play(tmp_path, tmp_path / "takes", workdir.parent / "piece00.mid", "any")
    if "representation" not in system:  # untrained, the others may end at once or jump past the last bar
        assert all(notes > 0 for notes in takes.continuations.notes)
    tokenizer = load_for_sampling(tmp_path)[3]
    for number, piece in enumerate(takes.pieces, 1):
        written = read_midi(tmp_path / "takes" / f"take_{number}.mid")
        assert np.array_equal(tokenizer.quantize(written).notes, tokenizer.quantize(piece).notes)


def test_from_nothing_with_the_instruments_asked_for(config, workdir, tmp_path):
    takes = play(workdir, tmp_path, instruments=["33", "drums"])
    notes = np.concatenate([piece.notes for piece in takes.pieces])
    assert len(notes) and set(notes["program"].tolist()) <= {33, DRUMS}
    assert takes.continuations.prompt_end == 0


def test_wrong_prompts_are_named(config, workdir, tmp_path):
    save_midi(Piece.from_notes([]), tmp_path / "empty.mid")
    save_midi(Piece.from_notes([(0, 0, 60, 12, 64)]), tmp_path / "short.mid")
    (tmp_path / "broken.mid").write_bytes(b"MThd\0\0\0\6\0\1")
    for name, message in (
        ("empty.mid", "has no notes"),
        ("short.mid", "1 bars of music, fewer than prompt_bars = 2"),
        ("broken.mid", "can't be read as MIDI"),
        ("missing.mid", "give the path of a MIDI file"),
    ):
        with pytest.raises(UserError, match=message) as error:
            play(workdir, tmp_path / "out", tmp_path / name)
        assert name in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("sampling", "top_p", 7, "config.sampling.top_p is 7"),
        ("continuation", "num_bars", 0, "config.continuation.num_bars is 0"),
        ("sampling", "tempo", 7, "config.sampling.tempo is not a field"),
    ],
)
def test_settings_that_cannot_be_are_named_by_field(workdir, section, field, value, message):
    with pytest.raises(UserError, match=message):
        load(workdir, settings={section: {field: value}})


def test_other_mistakes_are_told_by_name(config, workdir, tmp_path):
    prompt = str(workdir.parent / "piece00.mid")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no checkpoint in"):
        play(tmp_path, tmp_path / "out", prompt)
    with pytest.raises(UserError, match="cannot write"):
        play(workdir, tmp_path / "file" / "out", prompt)
    with pytest.raises(UserError, match=r"continuation.meter is \(11, 4\), which the vocabulary lacks"):
        play(workdir, tmp_path / "out", continuation={"meter": (11, 4)})
    for instrument in ("128", "-1", "kazoo"):
        with pytest.raises(UserError, match="General MIDI"):
            play(workdir, tmp_path / "out", instruments=[instrument])


def test_no_note_sounds_after_the_last_bar(takes):
    end = takes[0].bar_start(5)
    assert all(piece.end <= end for piece in takes)


def test_a_prompt_is_continued_by_its_own_instruments_unless_others_are_named(workdir):
    model, prompt = loaded(workdir), workdir.parent / "piece00.mid"
    own = set(programs_in(read_midi(prompt)))
    free = [take for seed in range(3) for take in model.continue_(prompt, instruments="any", seed=seed)]
    assert set().union(*map(programs_in, free)) - own, "a model of noise plays whatever it may"
    assert set().union(*map(programs_in, model.continue_(prompt))) <= own
    some = min(own)
    takes = model.continue_(prompt, instruments=[some, "Tuba"], bars=2)
    new = [piece.notes[piece.notes["onset"] >= takes.continuations.prompt_end] for piece in takes]
    assert {program for notes in new for program in notes["program"].tolist()} <= {some, 58}
    with pytest.raises(UserError, match=r"piece00.mid is for .*, and only Koto \(107\) may play; add"):
        model.continue_(prompt, instruments=["koto"])


def test_a_piece_of_another_grid_can_be_a_prompt(workdir):
    model = loaded(workdir)
    fine = Piece.from_notes([(96 * beat, 0, 60 + beat, 48, 64) for beat in range(16)], ticks_per_quarter=96)
    takes = model.continue_(fine, num_samples=1, bars=1)
    assert len(takes) == 1 and takes.prompt.notes["onset"][:3].tolist() == [0, 12, 24]
    assert list(takes) == [takes[0]] and takes[0].num_bars <= 3


def test_takes_are_saved_and_scored(takes, workdir, tmp_path):
    paths = takes.save(tmp_path)
    assert [path.name for path in paths] == ["take_1.mid", "take_2.mid"]
    model = loaded(workdir)
    scores = [model.score(path) for path in paths]
    assert scores[0].notes == len(read_midi(paths[0]).notes) and scores[0].bits_per_note > 0
    assert scores[0].bits_per_note == pytest.approx(sum(scores[0].attributes.values()))
    assert scores[0].bits_per_note / scores[0].bits_per_second == pytest.approx(scores[0].seconds / scores[0].notes)
    assert model.score(takes[0]) == scores[0] != scores[1]
    save_midi(Piece.from_notes([]), tmp_path / "empty.mid")
    with pytest.raises(UserError, match=r"empty\.mid has no notes"):
        model.score(tmp_path / "empty.mid")


def test_the_settings_of_a_run_are_those_of_its_config(workdir):
    model = load(workdir, settings={"continuation": {"num_bars": None, "seed": 5}, "sampling": {"top_p": 0.5}})
    assert (model.continuation.num_bars, model.continuation.seed, model.sampling.top_p) == (3, 5, 0.5)
    assert repr(model) == "Model(as_kvhs-mixed-1, step 2)"


def test_what_cannot_be_loaded_is_named(workdir, tmp_path):
    with pytest.raises(UserError, match=r"there is no model in .*nowhere; give the folder that launch.train has as --workdir"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no checkpoint in"):
        load(tmp_path)
    old = shutil.copytree(workdir, tmp_path / "old")
    for step in (old / "checkpoints").iterdir():
        (step / "checksums").rename(step / "digests")
    with pytest.raises(UserError, match="was written by an older version of sage_jax .*; train again"):
        load(old)


def test_the_package_offers_its_names_without_importing_jax():
    code = """
import sys, sage_jax
assert not {"jax", "orbax", "numpy"} & sys.modules.keys()
assert set(sage_jax.__all__) <= set(dir(sage_jax))
assert all(getattr(sage_jax, name).__name__ == name for name in sage_jax.__all__)
try:
    sage_jax.nothing
except AttributeError as error:
    assert "no attribute 'nothing'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
