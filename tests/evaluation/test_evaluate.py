"""A model of two steps, other people's files and the floors, from shards to a report."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from configs.evaluation import get_config
from sage_jax.errors import UserError
from sage_jax.evaluation.evaluate import evaluate
from sage_jax.evaluation.floors import FLOORS
from sage_jax.evaluation.results import Scored, table
from sage_jax.evaluation.task import EvaluationConfig
from sage_jax.music.events import NoteEvents
from sage_jax.music.midi import read_midi
from sage_jax.music.preprocess import PreprocessConfig, preprocess
from sage_jax.training.loop import train
from tests.music.midi_files import write_pieces
from tests.training.tiny import tiny_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("evaluated")
    write_pieces(folder, 12, num_notes=120)
    preprocess(f"folder:{folder}", folder / "run" / "data", NoteEvents(), PreprocessConfig(workers=1), show_progress=False)
    train(tiny_config(data=dict(num_events=32), train=dict(steps=2)), folder / "run")
    return folder / "run"


def config(**changes) -> EvaluationConfig:
    return EvaluationConfig.from_dict({**get_config("debug").to_dict(), **changes})


@pytest.fixture(scope="module")
def found(workdir):
    """The model, and the floor's own files as if they were somebody's."""
    output = workdir / "evaluation"
    evaluate(config(), {"run": workdir}, {}, output, "first", Console(quiet=True))
    for path in (output / "midi" / "truth").glob("*.mid"):
        theirs = workdir / "theirs"
        theirs.mkdir(exist_ok=True)
        (theirs / path.name).write_bytes(path.read_bytes())
    return evaluate(config(), {"run": workdir}, {"theirs": workdir / "theirs"}, output, "python -m launch.evaluate", Console(quiet=True))


def test_models_of_other_representations_are_compared_on_the_same_prompts(workdir, tmp_path):
    systems = {
        "mmt": dict(model=dict(form="pooled", sharing="mqa"), representation=dict(name="mmt")),
        "bpe": dict(model=dict(sharing="mqa"), representation=dict(name="remi", merges=15)),
    }
    workdirs = {"run": workdir}
    for name, system in systems.items():
        data = dict(num_events=32, shards=str(workdir / "data"))
        train(tiny_config(data=data, train=dict(steps=2), **system), tmp_path / name)
        workdirs[name] = tmp_path / name
    found = evaluate(config(prompts=2, samples=1), workdirs, {}, tmp_path / "out", "command", Console(quiet=True))
    notes = {name: row["notes"] for name, row in found["likelihood"].items()}
    assert notes["bpe"] == notes["run"] > notes["mmt"] > 0  # which tells no drums
    assert list(found["likelihood"]["bpe"]["attributes"]) == ["token"]
    for name in systems:
        assert found["scores"][name]["nmsi"]["mean"] > 0
        assert found["faults"][name]["invalid"] == found["faults"][name]["duplicates"] == 0
    assert (tmp_path / "out" / "attributes.png").exists()


def test_the_report_has_every_part(found, workdir):
    output = workdir / "evaluation"
    text = (output / "report.md").read_text()
    for part in ("## Continuations", "## Differences and power", "## Likelihood", "## Syntax", "## Memory", "## Character"):
        assert part in text
    for name in ("run", "theirs", *FLOORS):
        assert name in found["scores"] and name in text
    for name in ("scores.png", "attributes.png", "histograms.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((output / "evaluation.json").read_text()) == json.loads(json.dumps(found))
    by_prompt = json.loads((output / "scores.json").read_text())
    assert len(by_prompt) == found["prompts"]["count"] == 4
    assert found["scores"]["run"]["nmsi"]["mean"] == pytest.approx(np.mean([row["run"]["nmsi"] for row in by_prompt]))


def test_numbers_are_sane(found):
    assert found["scores"]["other"]["relative"]["mean"] == pytest.approx(0) and found["scores"]["later"]["relative"]["mean"] == pytest.approx(1)
    assert found["faults"]["run"]["invalid"] == found["faults"]["run"]["reversals"] == found["faults"]["run"]["duplicates"] == 0
    assert "from 3 pieces alone" in found["remarks"]["task"][0]
    # One file is there, and is the truth; the other three prompts are silence.
    assert found["faults"]["theirs"]["failures"] == 3 and "0001" in found["remarks"]["theirs"][0]
    assert found["likelihood"]["run"]["bits_per_note"]["mean"] > 20  # after two steps a model knows nothing
    assert sum(found["likelihood"]["run"]["attributes"].values()) == pytest.approx(found["likelihood"]["run"]["bits_per_note"]["mean"])
    assert found["character"]["truth"]["overlap"]["pitch class"] == pytest.approx(1)
    assert found["memory"]["truth"]["median"] >= found["memory"]["run"]["median"] - 5


def test_prompts_and_music_of_every_system_are_written(found, workdir):
    output = workdir / "evaluation"
    listed = json.loads((output / "prompts" / "prompts.json").read_text())
    assert [row["file"] for row in listed] == sorted(path.name for path in (output / "prompts").glob("*.mid")) and len(listed) == 4
    assert all(row["quarters_to_write"] > 8 and row["prompt_quarters"] > 8 for row in listed)
    for name in ("run", "theirs", "truth", *FLOORS):
        (path,) = (output / "midi" / name).glob("*.mid")
        given = read_midi(output / "prompts" / path.name).notes
        assert np.isin(given["onset"], read_midi(path).notes["onset"]).all()


def test_a_table_needs_its_floors():
    with pytest.raises(ValueError, match="no table of scores without its floors; missing: loop, other, later, markov"):
        table([], {"mine": Scored({}, 1, np.zeros(0, bool))})


def test_shards_alone_give_floors_and_prompts(workdir, tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "data").symlink_to(workdir / "data")
    found = evaluate(config(memory=False), {"only": tmp_path / "only"}, {}, tmp_path / "out", "floors", Console(quiet=True))
    assert set(found["scores"]) == set(FLOORS) and not found["likelihood"] and not found["memory"]
    assert "the floors alone" in (tmp_path / "out" / "report.md").read_text()


def test_mistakes_are_told_by_name(workdir, tmp_path):
    say = Console(quiet=True)
    for changes, message in (({"samples": 0}, "config.samples is 0"), ({"max_bars": 2}, "config.max_bars is 2"), ({"max_bars": 32}, "at most 16"), ({"seeds": 1}, "seeds")):
        with pytest.raises(UserError, match=message):
            config(**changes)
    with pytest.raises(UserError, match="config.sampling.top_p is 3"):
        config(sampling=dict(temperature=1.0, top_k=0, top_p=3, min_p=0.0))
    with pytest.raises(UserError, match="holds no token shards"):
        evaluate(config(), {"none": tmp_path}, {}, tmp_path / "out", "", say)
    with pytest.raises(UserError, match="no checkpoint in"):
        evaluate(config(), {"run": workdir, "none": tmp_path}, {}, tmp_path / "out", "", say)
    with pytest.raises(UserError, match="two systems are called run"):
        evaluate(config(), {"run": workdir}, {"run": tmp_path}, tmp_path / "out", "", say)
    with pytest.raises(UserError, match="has no split 'final'"):
        evaluate(config(split="final"), {"run": workdir}, {}, tmp_path / "out", "", say)
    with pytest.raises(UserError, match="is not a folder"):
        evaluate(config(), {"run": workdir}, {"theirs": tmp_path / "nowhere"}, tmp_path / "out", "", say)
    assert not (tmp_path / "out").exists()
    assert dataclasses.is_dataclass(config())


def test_the_script_says_what_is_wrong_in_a_line(workdir, tmp_path):
    command = [sys.executable, "-m", "launch.evaluate", "--config=configs/evaluation.py:debug", f"--workdir={workdir}"]
    run = subprocess.run([*command, f"--output={tmp_path}", "--candidates=x=/nowhere"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith("error: --candidates: /nowhere is not a folder")
