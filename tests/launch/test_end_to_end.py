"""MIDI in, MIDI out: preprocess, train, sample, and what the sampler says to those who hold it wrong."""

import json
import os
import subprocess
import sys
import wave

import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.music.events import NoteEvents
from sage_jax.music.midi import read_midi, save_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.music.preprocess import PreprocessConfig, preprocess
from sage_jax.sample import sample
from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.loop import train
from tests.music import smf
from tests.music.midi_files import write_pieces
from tests.training.tiny import tiny_config

TAKES = dict(num_samples=2, prompt_bars=2, new_bars=3, max_events=60)


@pytest.fixture(scope="module")
def config() -> dict:
    return tiny_config(data=dict(num_events=32), train=dict(steps=2), takes=TAKES)


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A run of two steps on a folder of somebody's own MIDI files."""
    folder = tmp_path_factory.mktemp("mine")
    write_pieces(folder, 6)
    preprocess(f"folder:{folder}", folder / "run" / "data", NoteEvents(), PreprocessConfig(workers=1), show_progress=False)
    result = train(config, folder / "run")
    assert result["step"] == 2 and np.isfinite(result["valid"]["loss"])
    return folder / "run"


@pytest.fixture(scope="module")
def takes(config, workdir):
    """Two takes of more events than the model's context holds."""
    return sample(config.to_dict(), workdir, workdir / "takes", prompt=str(workdir.parent / "piece00.mid"))


def test_takes_continue_the_prompt(takes, workdir):
    prompt = read_midi(workdir / "takes" / "prompt.mid")
    tokenizer = NoteEvents()
    for number, piece in enumerate(takes.pieces, 1):
        written = tokenizer.quantize(read_midi(workdir / "takes" / f"take_{number}.mid"))
        assert np.array_equal(written.notes, piece.notes)
        before = piece.notes[piece.notes["onset"] < takes.prompt_end]
        assert np.array_equal(before, prompt.notes)
        bars = piece.bars.locate(piece.notes["onset"][len(before) :])[0]
        assert len(bars) == takes.notes[number - 1] > 0
        assert bars.min() >= 2 and bars.max() < 5
    assert not np.array_equal(takes.pieces[0].notes, takes.pieces[1].notes)


def test_bars_and_tempo_of_a_prompt_are_those_of_its_file_and_changes_are_shown(config, workdir, tmp_path, capsys):
    """11/4 at 100 quarters per minute, neither of which the vocabulary has, and a hit without length."""
    events = [event for beat in range(66) for event in smf.note(beat * smf.QUARTER, smf.QUARTER, 60 + beat % 5)]
    hit = [smf.on(smf.QUARTER, 36, 100, 9), smf.off(smf.QUARTER, 36, 9)]
    path = tmp_path / "balkan.mid"
    path.write_bytes(smf.smf(smf.track(smf.meta(0, 0x59)), smf.track(smf.tempo(0, 100), smf.meter(0, 11, 4), events), smf.track(hit)))
    takes = sample(config.to_dict(), workdir, tmp_path / "takes", prompt=str(path))
    bars = config.takes.prompt_bars
    assert takes.prompt_end == 12 * 11 * bars
    for name, piece in [("prompt", None), *((f"take_{number}", piece) for number, piece in enumerate(takes.pieces, 1))]:
        written = read_midi(tmp_path / "takes" / f"{name}.mid")
        assert written.tempos[0].tolist() == (0, 100.0)
        assert written.meters[["numerator", "denominator"]][:2].tolist() == [(6, 4), (5, 4)]
        assert piece is None or np.array_equal(piece.tempos, written.tempos)
    about = json.loads((tmp_path / "takes" / "takes.json").read_text())
    assert about["prompt_bars"] == bars
    changed = "\n".join(about["changed"])
    assert "prompt: meters: 1, 0 merged, 1 split into shorter bars" in changed and "1 without a length" in changed
    assert "file: oddities: 1 meta events of a wrong length" in changed and "prompt: tempos:" in changed
    printed = capsys.readouterr().out
    assert f"{bars} bars" in printed and "split into shorter bars" in printed


def test_a_file_that_cannot_be_a_prompt_costs_one_line(config, workdir, tmp_path):
    (tmp_path / "cut.mid").write_bytes(smf.smf(smf.track(smf.scale()))[:-9])
    with pytest.raises(UserError, match=r"cut\.mid can't be read as MIDI: track 1 is cut short; save it again from a music program"):
        sample(config.to_dict(), workdir, tmp_path / "takes", prompt=str(tmp_path / "cut.mid"))
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
    again = sample(config.to_dict(), workdir, tmp_path, prompt=str(workdir.parent / "piece00.mid"))
    assert again.pieces == takes.pieces


@pytest.mark.parametrize(
    "system",
    [
        dict(model=dict(form="nested")),
        dict(model=dict(form="delay")),
        dict(model=dict(form="pooled", sharing="mqa"), representation=dict(name="mmt")),
        dict(model=dict(sharing="mqa"), representation=dict(name="remi", merges=15)),
    ],
    ids=["nested", "delay", "mmt", "bpe"],
)
def test_the_other_systems_train_and_continue_a_prompt(system, workdir, tmp_path):
    shards = dict(num_events=32, shards=str(workdir / "data"))
    config = tiny_config(data=shards, train=dict(steps=2), takes=TAKES, **system)
    assert np.isfinite(train(config, tmp_path)["valid"]["loss"])
    takes = sample(config.to_dict(), tmp_path, tmp_path / "takes", prompt=str(workdir.parent / "piece00.mid"))
    if "representation" not in system:  # the others may as well end at once, or leap beyond the bars wanted: they know nothing yet
        assert all(notes > 0 for notes in takes.notes)
    representation = load_for_sampling(tmp_path)[3]
    for number, piece in enumerate(takes.pieces, 1):
        written = representation.quantize(read_midi(tmp_path / "takes" / f"take_{number}.mid"))
        assert np.array_equal(written.notes, piece.notes)


def test_from_nothing_with_the_instruments_asked_for(config, workdir, tmp_path):
    takes = sample(config.to_dict(), workdir, tmp_path, instruments=["33", "drums"])
    notes = np.concatenate([piece.notes for piece in takes.pieces])
    assert len(notes) and set(notes["program"].tolist()) <= {33, DRUMS}
    assert takes.prompt_end == 0


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
            sample(config.to_dict(), workdir, tmp_path / "out", prompt=str(tmp_path / name))
        assert name in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "section, field, value, message",
    [
        ("model", "width", 24, "model.width is 16 there and 24 here"),
        ("tokenizer", "num_velocities", 16, "tokenizer.num_velocities is 32 there and 16 here"),
        ("sampling", "top_p", 7, "sampling.top_p is 7"),
        ("takes", "new_bars", 0, "takes.new_bars is 0"),
        ("sampling", "tempo", 7, "sampling.tempo is not a field"),
    ],
)
def test_a_config_that_does_not_fit_is_told_by_field(config, workdir, tmp_path, section, field, value, message):
    changed = config.to_dict()
    changed[section][field] = value
    with pytest.raises(UserError, match=message):
        sample(changed, workdir, tmp_path)


def test_other_mistakes_are_told_by_name(config, workdir, tmp_path):
    prompt = str(workdir.parent / "piece00.mid")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no checkpoint in"):
        sample(config.to_dict(), tmp_path, tmp_path / "out", prompt=prompt)
    with pytest.raises(UserError, match="cannot write"):
        sample(config.to_dict(), workdir, tmp_path / "file" / "out", prompt=prompt)
    nothing = config.to_dict()
    nothing["takes"]["meter"] = (11, 4)
    with pytest.raises(UserError, match=r"takes.meter is \(11, 4\), which the vocabulary lacks"):
        sample(nothing, workdir, tmp_path / "out")
    for instrument in ("128", "-1", "tuba"):
        with pytest.raises(UserError, match="General MIDI"):
            sample(config.to_dict(), workdir, tmp_path / "out", instruments=[instrument])


@pytest.mark.parametrize("script", ["preprocess", "train", "sample"])
def test_scripts_help_and_mistakes_take_one_line(script):
    def run(*flags):
        return subprocess.run([sys.executable, "-m", f"launch.{script}", *flags], capture_output=True, text=True, check=False)

    help_text = run("--help")
    assert "--workdir" in help_text.stdout and "--config" in help_text.stdout
    wrong = run("--config=configs/sage.py:debug", "--workdir=nowhere", "--config.model.size=3")
    assert wrong.returncode == 2
    (line,) = wrong.stderr.strip().splitlines()
    assert line.startswith("error: --config.model.size=3 sets a field that the config doesn't have; known are ahead, attention, ")
