"""End-to-end evaluation of an untrained model, candidate files and the baselines, from shards to a report."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from configs.evaluation import get_config
from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.baselines import BASELINES
from sage_jax.evaluation.evaluate import evaluate
from sage_jax.evaluation.outputs import save_music
from sage_jax.evaluation.results import Evaluation, SystemScores, table
from sage_jax.evaluation.sampling_grid import as_markdown, sampling_grid, settings_of
from sage_jax.evaluation.task import EvaluationConfig, Task
from sage_jax.music.midi import read_midi
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.midi_files import write_pieces
from tests.training.tiny import tiny_config
from tests.training.untrained import save_untrained

pytestmark = pytest.mark.usefixtures("quick_init")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("evaluated")
    write_pieces(folder, 12, num_notes=120)
    preprocess(f"folder:{folder}", folder / "run" / "data", NoteEvents(), PreprocessConfig(workers=1), show_progress=False)
    save_untrained(tiny_config(data=dict(context_events=32)), folder / "run")
    return folder / "run"


def config(**changes) -> EvaluationConfig:
    return EvaluationConfig.from_dict({**get_config("debug").to_dict(), **changes})


@pytest.fixture(scope="module")
def evaluation(workdir) -> Evaluation:
    """Of the model, and of the reference of one prompt as another system's file."""
    output, candidates = workdir / "evaluation", workdir / "candidates"
    prompts = Task.of(config(), workdir / "data", workdir).prompts
    save_music(candidates, 1, prompts, {"theirs": [prompt.reference for prompt in prompts]})
    (output / "prompts").mkdir(parents=True)
    (output / "prompts" / "0099.mid").touch()  # of an earlier call
    console = Console(quiet=True)
    return evaluate(config(), {"run": workdir}, {"theirs": candidates / "theirs"}, output, "python -m launch.evaluate", console)


def test_models_with_other_tokenizers_are_evaluated_on_the_same_notes(evaluation, workdir, tmp_path):
    systems = {
        "mmt": dict(model=dict(architecture="pooled", kv_sharing="mqa"), representation=dict(name="mmt")),
        "bpe": dict(model=dict(kv_sharing="mqa"), representation=dict(name="remi", merges=15)),
    }
    workdirs = {}
    for name, system in systems.items():
        data = dict(context_events=32, shards=str(workdir / "data"))
        save_untrained(tiny_config(data=data, **system), tmp_path / name)
        workdirs[name] = tmp_path / name
    changes = dict(prompts=2, samples=1, memorization=False)
    found = evaluate(config(**changes), workdirs, {}, tmp_path / "out", "command", Console(quiet=True))
    notes = {name: row["notes"] for name, row in found.likelihood.items()}
    assert notes["bpe"] == evaluation.likelihood["run"]["notes"] > notes["mmt"] > 0  # mmt encodes no drums
    assert list(found.likelihood["bpe"]["attributes"]) == ["token"]
    for name in systems:
        assert found.scores[name]["nmsi"]["mean"] > 0
        assert found.syntax[name]["invalid"] == found.syntax[name]["duplicates"] == 0
    assert (tmp_path / "out" / "attributes.png").exists()


def test_the_report_has_every_section(evaluation, workdir):
    output = workdir / "evaluation"
    text = (output / "report.md").read_text()
    sections = ["Continuations", "Differences and power", "Likelihood", "Syntax", "Memorization", "Descriptive statistics"]
    assert all(f"## {section}" in text for section in (*sections, "Decoding"))
    for name in ("run", "theirs", *BASELINES):
        assert name in evaluation.scores and name in text
    for name in ("scores.png", "attributes.png", "histograms.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    assert Evaluation.from_json(json.loads((output / "evaluation.json").read_text())) == evaluation
    by_prompt = json.loads((output / "scores.json").read_text())
    assert len(by_prompt) == evaluation.prompts["count"] == 4
    assert evaluation.scores["run"]["nmsi"]["mean"] == pytest.approx(np.mean([row["run"]["nmsi"] for row in by_prompt]))


def test_numbers_are_plausible(evaluation):
    scores, syntax, likelihood = evaluation.scores, evaluation.syntax, evaluation.likelihood["run"]
    assert scores["other"]["relative"]["mean"] == pytest.approx(0) and scores["later"]["relative"]["mean"] == pytest.approx(1)
    assert syntax["run"]["invalid"] == syntax["run"]["reversals"] == syntax["run"]["duplicates"] == 0
    assert "come from 3 pieces" in evaluation.notes["task"][0]
    # One file is the reference; the other three prompts have none, and are scored as silence.
    assert syntax["theirs"]["empty"] == 3 and "0001" in evaluation.notes["theirs"][0]
    assert likelihood["bits_per_note"]["mean"] > 20  # of an untrained model
    assert sum(likelihood["attributes"].values()) == pytest.approx(likelihood["bits_per_note"]["mean"])
    assert evaluation.descriptive_statistics["truth"]["overlap"]["pitch class"] == pytest.approx(1)
    assert evaluation.memorization["truth"]["median"] >= evaluation.memorization["run"]["median"] - 5


def test_prompts_and_music_of_every_system_are_written(evaluation, workdir):
    output = workdir / "evaluation"
    listed = json.loads((output / "prompts" / "prompts.json").read_text())
    files = sorted(path.name for path in (output / "prompts").glob("*.mid"))
    assert [row["file"] for row in listed] == files and len(listed) == 4
    assert all(row["quarters_to_write"] > 8 and row["prompt_quarters"] > 8 for row in listed)
    for name in ("run", "theirs", "truth", *BASELINES):
        (path,) = (output / "midi" / name).glob("*.mid")
        given = read_midi(output / "prompts" / path.name).notes
        assert np.isin(given["onset"], read_midi(path).notes["onset"]).all()


def test_a_table_needs_all_baselines():
    with pytest.raises(ValueError, match="no table of scores without its baselines; missing: loop, other, later, markov"):
        table([], {"mine": SystemScores({}, 1, np.zeros(0, bool))})


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_a_workdir_without_checkpoint_or_for_its_shards_gives_baselines_and_prompts(workdir, tmp_path, has_checkpoint):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "data").symlink_to(workdir / "data")
    workdirs, console = {"only": workdir if has_checkpoint else tmp_path / "only"}, Console(quiet=True)
    settings, output = config(memorization=False), tmp_path / "out"
    found = evaluate(settings, workdirs, {}, output, "command", console, shards_only=has_checkpoint)
    assert set(found.scores) == set(BASELINES) and not found.likelihood and not found.memorization
    assert "only the baselines" in (tmp_path / "out" / "report.md").read_text()


def test_mistakes_are_named(workdir, tmp_path):
    console = Console(quiet=True)
    for changes, message in (
        ({"samples": 0}, "config.samples is 0"),
        ({"max_bars": 2}, "config.max_bars is 2"),
        ({"max_bars": 32}, "at most 16"),
        ({"seeds": 1}, "seeds"),
    ):
        with pytest.raises(UserError, match=message):
            config(**changes)
    with pytest.raises(UserError, match="config.sampling.top_p is 3"):
        config(sampling=dict(temperature=1.0, top_k=0, top_p=3, min_p=0.0))
    with pytest.raises(UserError, match="holds no token shards"):
        evaluate(config(), {"none": tmp_path}, {}, tmp_path / "out", "", console)
    with pytest.raises(UserError, match="no checkpoint in"):
        evaluate(config(), {"run": workdir, "none": tmp_path}, {}, tmp_path / "out", "", console)
    with pytest.raises(UserError, match="the system name run is taken"):
        evaluate(config(), {"run": workdir}, {"run": tmp_path}, tmp_path / "out", "", console)
    with pytest.raises(UserError, match="has no split 'final'"):
        evaluate(config(split="final"), {"run": workdir}, {}, tmp_path / "out", "", console)
    with pytest.raises(UserError, match="is not a folder"):
        evaluate(config(), {"run": workdir}, {"theirs": tmp_path / "nowhere"}, tmp_path / "out", "", console)
    assert not (tmp_path / "out").exists()
    assert dataclasses.is_dataclass(config())


@pytest.mark.process
def test_the_script_reports_a_mistake_in_one_line(workdir, tmp_path):
    command = [sys.executable, "-m", "launch.evaluate", "--config=configs/evaluation.py:debug", f"--workdir={workdir}"]
    command += [f"--output={tmp_path}", "--candidates=x=/nowhere"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith("error: --candidates: /nowhere is not a folder")


def test_sampling_settings_are_compared_on_prompts_that_are_not_of_the_test_split(workdir, tmp_path):
    settings = settings_of({"temperature": [0.5, 1.0], "top_p": [0.9], "min_p": []})
    assert settings == [SamplingConfig(0.5, 0, 0.9), SamplingConfig(1.0, 0, 0.9)]
    limited = config(split="train", prompts=2, samples=1, prompt_instruments=True)
    rows = sampling_grid(workdir, workdir, limited, settings, tmp_path)
    names = [row["system"] for row in rows]
    assert set(names[:2]) == {"temperature 0.5, top_p 0.9", "temperature 1, top_p 0.9"} and set(names[2:]) == set(BASELINES)
    assert rows[0]["nmsi"].mean >= rows[1]["nmsi"].mean and 0 <= rows[0]["overlap"]["mean"] <= 1
    assert as_markdown(rows).count("\n") == 1 + len(rows)
    with pytest.raises(UserError, match="config.split is test, on which nothing may be chosen"):
        sampling_grid(workdir, workdir, config(), settings, tmp_path)
