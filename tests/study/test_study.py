"""A tiny study from its corpus to its report, and resumption, workers and reuse."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from configs import study as configs
from sage_jax.benchmark import interleaved
from sage_jax.errors import UserError
from sage_jax.files import ROOT, claim
from sage_jax.study import cli, reuse, speed, trials
from sage_jax.study.claims import UNTESTED, verdicts
from sage_jax.study.code import code_fingerprint, statements
from sage_jax.study.config import StudyConfig, Trial, Variant
from sage_jax.study.results import VariantSpeed, read_result
from sage_jax.study.study import find_rates
from sage_jax.study.trials import Evaluator, stopped_improving, trial_folder
from tests.benchmark.fake_worker import FakeWorker

pytestmark = pytest.mark.usefixtures("quick_init", "compiled_once")
DEVICE = dict(bytes_per_second=1e9, operations_per_second=1e9)


class FakeDecoder(FakeWorker):
    """Answers a decoder's job: 10 ms per event."""

    def __init__(self, command: list[str], job: dict[str, Any], *arguments: Any, **keywords: Any):
        events = job.get("events", 0)
        run = dict(seconds=[0.01] * events, events_drawn=events, notes_drawn=events, prefill_seconds=0.1, peak_megabytes=1.0)
        answer = run | dict(loop_seconds=0.01 * events) if events else DEVICE
        metadata = dict(tokens_per_note=5, cache_bytes=1000)
        super().__init__(command, job | dict(answer=answer, metadata=metadata), *arguments, **keywords)


def tiny() -> dict[str, Any]:
    """The config of two small models on one corpus, two seeds each."""
    config = configs.get_config("debug").to_dict()
    config["corpora"] = dict(multitrack="embedded")
    config["run"]["model"]["num_layers"] = 1
    config["lr_search_systems"] = ("mha", "nested2-mqa")  # of both families, and the trials compile nothing new
    config["tables"] = dict(forms=dict(systems=("mha", "nested2-mqa"), train_on=("multitrack",), seeds=2))
    return config


def launch(config: dict[str, Any], workdir: pathlib.Path | None, **options: Any) -> list[str]:
    """Runs launch.study's logic in this process; returns what it says."""
    said: list[str] = []
    cli.run(config, cli.Options(str(workdir) if workdir else None, "the command", **options), said.append)
    return said


def copy_music(study: pathlib.Path, workdir: pathlib.Path) -> None:
    """Gives a new study the music of `study`, and its floors, which take long to compute."""
    for folder in ("corpora", "floors"):
        shutil.copytree(study / folder, workdir / folder)


@pytest.fixture(scope="module")
def fake_decoders():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaved, "Worker", FakeDecoder)
        patch.setattr(speed, "Worker", FakeDecoder)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, fake_decoders, shared_programs) -> pathlib.Path:
    """A finished study with a speed for each variant."""
    folder = tmp_path_factory.mktemp("study")
    said = launch(tiny(), folder)
    assert "skipped" not in " ".join(said) and "not measured" not in " ".join(said)
    return folder


def test_a_study_ends_in_tables_and_json(finished):
    result = read_result(finished / "results.json")
    assert len(result.trials) == result.num_trials == 4 and len(result.lr_trials) == 2
    # The search is as long as the others, so the first seed goes on from it.
    assert [trial.train_seconds > 0 for trial in result.trials] == [False, False, True, True]
    assert all(trial.curve[-1][0] == trial.step == 4 and trial.converged is None for trial in result.trials)
    assert all(sum(count for _, count in each) > 0 for each in result.floors["multitrack"].values())
    assert len(result.held_out["multitrack"].pieces) == len(result.trials[0].scores["multitrack"].piece_bits)
    # One turn is not enough for times: only counts are reported.
    assert set(result.speeds) == {"multitrack/mha", "multitrack/nested2-mqa"}
    assert all(each == VariantSpeed(each.steps_per_note, 1000) for each in result.speeds.values())
    measured = json.loads((finished / "speed" / "multitrack" / "nested2-mqa.json").read_text())
    assert measured["events_drawn"] == 4 and measured["notes_drawn"] == 4 and "speedup" not in measured
    report = (finished / "RESULTS.md").read_text()
    assert "All 4 models" in report and "nested2-mqa" in report and str(finished) not in report
    assert "| notes/s" not in report and "cache, MB" in report and "the speed of none is measured" in report
    ours = next(each for each in verdicts(result) if each.claim.text.startswith("Ours"))
    assert ours.verdict != UNTESTED and ours.claim.text in report
    assert (finished / "results.png").stat().st_size > 1000


def test_finished_trials_are_not_repeated(finished):
    paths = sorted(finished.glob("trials/**/result.json"))
    before = {path: path.stat().st_mtime_ns for path in paths}
    lost = next(path for path in paths if "nested2-mqa/seed1" in str(path))
    lost.unlink()
    launch(tiny(), finished, report_only=True)
    assert "**Not finished:** 3 of 4 models" in (finished / "RESULTS.md").read_text()
    assert launch(tiny(), finished, worker=True) == ["4 of 4: multitrack/nested2-mqa/seed1"]
    assert "**Not finished:** 3 of 4 models" in (finished / "RESULTS.md").read_text()  # a worker writes no report
    launch(tiny(), finished, report_only=True)
    assert {path for path in paths if path.stat().st_mtime_ns != before[path]} == {lost}
    assert "All 4 models" in (finished / "RESULTS.md").read_text()


def test_trials_of_another_workdir_are_reused(finished, tmp_path):
    """A trial is reused if its settings and the music are the same."""
    copy_music(finished, tmp_path)
    result = read_result(finished / "results.json")
    part = tmp_path / "part.json"
    part.write_text(json.dumps(dataclasses.replace(result, trials=result.trials[1:]).to_json()))
    launch(tiny(), tmp_path, report_only=True, reuse=[str(part), str(finished / "results.json")])
    again = read_result(tmp_path / "results.json")
    assert again.lr_trials == result.lr_trials and again.trials == result.trials

    study = StudyConfig.from_dict(tiny())
    evaluator = Evaluator(study, tmp_path, [part])
    reused = evaluator.reused
    rates = {study.family(trial.system): trial.learning_rate for trial in result.lr_trials}
    trials = list(study.trials(rates))
    assert [evaluator.identity(trial) in reused for trial in trials] == [False, True, True, True]
    steps = dataclasses.replace(study, run={**study.run, "train": {**study.run["train"], "steps": 5}})
    assert not any(Evaluator(steps, tmp_path).identity(trial) in reused for trial in trials)
    shutil.rmtree(tmp_path / "corpora")
    assert not any(Evaluator(study, tmp_path).identity(trial) in reused for trial in trials)


def test_a_report_is_made_from_json_alone(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "DOCS", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    launch({}, tmp_path, from_json=str(finished / "results.json"), publish=True)
    assert (tmp_path / "RESULTS.md").read_text() == (finished / "RESULTS.md").read_text()
    assert read_result(tmp_path / "docs" / "study-debug.json") == read_result(finished / "results.json")
    assert "(study-debug.png)" in (tmp_path / "docs" / "results.md").read_text()


def test_results_that_must_not_be_mixed_are_refused_by_name(finished, tmp_path, monkeypatch):
    copy_music(finished, tmp_path)
    path = finished / "results.json"
    values = json.loads(path.read_text())
    refused = {
        "other music in its corpus multitrack": values | {"music": {"multitrack": "another"}},
        r"config.run.model.num_layers = 3, and this study has 1": values
        | {"run": {**values["run"], "model": {**values["run"]["model"], "num_layers": 3}}},
        "config.evaluation.prompts = 99": values | {"evaluation": {**values["evaluation"], "prompts": 99}},
    }
    for message, other in refused.items():
        (tmp_path / "other.json").write_text(json.dumps(other))
        with pytest.raises(UserError, match=f"other.json has {message}"):
            launch(tiny(), tmp_path, report_only=True, reuse=[str(tmp_path / "other.json")])
    for module in (reuse, trials):
        monkeypatch.setattr(module, "code_fingerprint", lambda: "later")
    with pytest.raises(UserError, match=r"results.json was made by other code than this.*--accept_code"):
        launch(tiny(), tmp_path, report_only=True, reuse=[str(path)])
    with pytest.raises(UserError, match=r"rate0.003/result.json was made by other code"):
        launch(tiny(), finished, report_only=True)
    launch(tiny(), tmp_path, report_only=True, reuse=[str(path)], accept_code=True)
    assert len(read_result(tmp_path / "results.json").trials) == 4


def test_code_is_its_statements():
    one = statements('"""Doc."""\n\ndef f(x):\n    """Doc."""\n    return x  # a comment\n')
    assert one == statements("def f(x): return x") != statements("def f(y): return y")
    assert len(code_fingerprint()) == 12


def test_patience_ends_at_a_plateau():
    assert stopped_improving([3.0, 2.0, 2.5, 2.0], 2) and not stopped_improving([3.0, 2.0, 2.5, 1.9], 2)
    assert stopped_improving([3.0, 4.0], 2) is False and stopped_improving([3.0, 4.0, 5.0], 0) is None


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="--workdir is missing"):
        launch(tiny(), None)
    for option in (dict(from_json=str(tmp_path / "none.json")), dict(reuse=[str(tmp_path / "none.json")])):
        with pytest.raises(UserError, match="is not the JSON of a study"):
            launch(tiny(), tmp_path, **option)
    with pytest.raises(UserError, match="--flops_per_second is 0"):
        cli.print_cost(tiny(), 0.0)


def test_speeds_with_enough_turns_are_in_the_report(finished, tmp_path, fake_decoders):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "speed")
    config = tiny()
    config["speed_benchmark"]["rounds"] = 21
    launch(config, tmp_path)
    result = read_result(tmp_path / "results.json")
    measured = result.speed_of(Variant("nested2-mqa", "multitrack"))
    assert measured is not None and measured.notes_per_second == pytest.approx(100)
    assert measured.speedup is not None and measured.speedup.value == 1 and measured.speedup.turns == 20
    report = (tmp_path / "RESULTS.md").read_text()
    assert "| notes/s | speedup |" in report and "1.00 (1.00 to 1.00)" in report


def test_the_rate_search_extends_beyond_an_edge(finished, tmp_path, monkeypatch):
    copy_music(finished, tmp_path)
    tried = []

    def loss_falls_with_rate(trial, *_):
        tried.append(trial.learning_rate)
        return {"valid": {"loss": 1 - trial.learning_rate}}

    monkeypatch.setattr("sage_jax.study.study.run_trial", loss_falls_with_rate)
    config = StudyConfig.from_dict({**tiny(), "learning_rates": (1e-3, 2e-3)})
    assert find_rates(Evaluator(config, tmp_path), lambda line: None) == {"flat": 8e-3, "nested": 8e-3}
    assert tried == [1e-3, 2e-3, 1e-3, 2e-3, 4e-3, 4e-3, 8e-3, 8e-3]


def test_the_rate_search_puts_off_what_another_process_holds(finished, tmp_path, monkeypatch):
    copy_music(finished, tmp_path)
    config = StudyConfig.from_dict({**tiny(), "learning_rates": (1e-3, 2e-3, 4e-3)})
    tried = []
    with contextlib.ExitStack() as other_process:

        def done(trial, *_):
            tried.append((trial.variant.system, trial.learning_rate))
            if len(tried) == 5:  # all but the one held, which is now waited for
                other_process.close()
            return {"valid": {"loss": abs(trial.learning_rate - 2e-3)}}

        monkeypatch.setattr("sage_jax.study.study.run_trial", done)
        first = Trial(Variant("mha", "multitrack"), 0, 1e-3)
        other_process.enter_context(claim(trial_folder(tmp_path, first), wait=False))
        assert find_rates(Evaluator(config, tmp_path), lambda line: None) == {"flat": 2e-3, "nested": 2e-3}
    nested = [("nested2-mqa", rate) for rate in (1e-3, 2e-3, 4e-3)]
    assert tried == [("mha", 2e-3), ("mha", 4e-3), *nested, ("mha", 1e-3)]


@pytest.mark.process
def test_the_command_line(finished, tmp_path):
    copy_music(finished, tmp_path)
    systems = ["tables.forms.systems=('mha','nested2-mqa')", "lr_search_systems=('mha','nested2-mqa')"]
    overrides = [*systems, "run.model.num_layers=1"]
    overrides += [f"tables.{name}.train_on=()" for name in ("sharing", "equal_parameters", "merges", "other_music")]
    command = [sys.executable, "-m", "launch.study", "--config=configs/study.py:debug", f"--workdir={tmp_path}"]
    command += [f"--config.{override}" for override in overrides]
    command += ["--report_only", f"--reuse={finished / 'results.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == str(tmp_path / "RESULTS.md")
    report = (tmp_path / "RESULTS.md").read_text()
    assert "All 4 models" in report and "--reuse=FILE" in report and "--report_only" not in report
