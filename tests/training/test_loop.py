"""The order of events in the training loop, with stand-ins for the model, the data and (mostly) the checkpoints."""

import functools
import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import Preempted, UserError
from sage_jax.tokenizers.note_events import ATTRIBUTES, NUM_ATTRIBUTES
from sage_jax.training import loop
from sage_jax.training.checkpoint import Checkpoints
from sage_jax.training.loop import train
from sage_jax.training.metric_logger import Diverged, MetricLogger
from sage_jax.training.metrics import read_metrics
from sage_jax.training.placement import TrainFunctions
from sage_jax.training.preemption import StopSignal
from sage_jax.training.run_manifest import read_manifest
from sage_jax.training.state import TrainState
from sage_jax.training.step import LossSums
from tests.training.tiny import tiny_config


class Numbers:
    """A resumable dataset whose batches are 1, 2, 3, ...; calls `hook` with each."""

    def __init__(self, hook=lambda number: None):
        self.hook = hook

    def __iter__(self):
        return NumbersIterator(self.hook)


class NumbersIterator:
    def __init__(self, hook):
        self.number, self.hook = 0, hook

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        self.hook(self.number)
        return {"events": np.int32(self.number)}

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


class Jitted:
    """A stand-in for a jitted function and for its compiled form."""

    def lower(self, *_):
        return self

    def compile(self):
        return self


class EvalStep(Jitted):
    """A loss that is the one parameter."""

    def __call__(self, params, batch):
        return LossSums(jnp.full(NUM_ATTRIBUTES, params["sum"], jnp.float32), jnp.int32(5), jnp.int32(25))


class TrainStep(Jitted):
    """Adds the batch's number to the one parameter; the loss of `bad_step` is NaN."""

    def __init__(self, calls, bad_step):
        self.calls, self.bad_step = calls, bad_step

    def __call__(self, state, batch):
        step = int(state.step) + 1
        self.calls.append(("train_step", step))
        loss = jnp.nan if step == self.bad_step else 1 / step
        metrics = {**dict.fromkeys(("loss", "grad_norm", "param_norm", *ATTRIBUTES), loss), "notes": 10, "tokens": 50}
        metrics["bad"] = not np.isfinite(loss)
        params = {"sum": state.params["sum"] + batch["events"]}
        return state.replace(step=state.step + 1, params=params), metrics


class FakeCheckpoints:
    """A stand-in for Checkpoints, in memory; `saved` outlives it as files would."""

    def __init__(self, saved, *_):
        self.saved = saved

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def latest_step(self):
        return max(self.saved, default=None)

    def save(self, state, position, valid_loss=None):
        self.saved.setdefault(int(state.step), (state, position))

    def restore(self, like):
        return self.saved[self.latest_step]


@pytest.fixture
def saved():
    """Step -> (state, position), the checkpoints of `run`."""
    return {}


@pytest.fixture
def run(monkeypatch, tmp_path, saved):
    """run(hook=, bad_step=, orbax=, **train) -> (summary, calls): a run in tmp_path, and the order of its calls."""
    calls = []

    def record(owner, name, label):
        original = getattr(owner, name)

        def wrapped(self, first, *rest):
            calls.append((label, int(getattr(first, "step", first))))
            return original(self, first, *rest)

        monkeypatch.setattr(owner, name, wrapped)

    record(MetricLogger, "train", "log")
    record(MetricLogger, "valid", "validate")
    record(FakeCheckpoints, "save", "save")

    def run(hook=lambda number: None, bad_step=None, orbax=False, **sections):
        calls.clear()

        def init(seed):
            return TrainState(jnp.int32(0), {"sum": jnp.int32(0)}, {"count": jnp.int32(0)}, jnp.float32(1))

        functions = TrainFunctions(init, TrainStep(calls, bad_step), EvalStep(), shard_batch=lambda batch: batch)
        monkeypatch.setattr(loop, "make_train_functions", lambda *_: functions)
        monkeypatch.setattr(loop, "datasets", lambda *_: (Numbers(hook), [{"events": np.int32(0)}]))
        monkeypatch.setattr(loop, "Checkpoints", Checkpoints if orbax else functools.partial(FakeCheckpoints, saved))
        return train(tiny_config(train=dict(steps=4, eval_every=4, checkpoint_every=4) | sections), tmp_path), calls

    return run


def steps_of(workdir, kind="train"):
    return [line["step"] for line in read_metrics(workdir / "metrics.jsonl", kind)]


def test_metrics_are_fetched_after_the_next_step_is_dispatched(run):
    _, calls = run()
    steps = [("train_step", 1), ("train_step", 2), ("log", 1), ("train_step", 3), ("log", 2), ("train_step", 4), ("log", 3)]
    assert calls == [*steps, ("log", 4), ("validate", 4), ("save", 4)]


def test_validation_and_checkpoints_have_their_own_intervals_and_the_best_step_is_saved(run, tmp_path):
    summary, calls = run(steps=7, eval_every=2, checkpoint_every=3, log_every=2)
    assert [call for call in calls if call[0] in ("validate", "save")] == [
        *(("validate", 2), ("save", 2), ("save", 3), ("validate", 4)),
        *(("validate", 6), ("save", 6), ("validate", 7), ("save", 7)),
    ]
    assert steps_of(tmp_path) == [2, 4, 6, 7]
    assert summary["step"] == 7
    assert summary["valid"]["loss"] == sum(range(8)) * NUM_ATTRIBUTES / 5


def test_the_log_is_json_with_rates_and_the_learning_rate(run, tmp_path):
    run()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # neither NaN nor Infinity
    last = read_metrics(tmp_path / "metrics.jsonl", "train")[-1]
    assert {"loss", *ATTRIBUTES, "grad_norm", "learning_rate", "notes_per_second", "tokens_per_second"} <= last.keys()
    assert last["notes_per_step"] == 10


def test_a_nan_stops_the_run_and_is_never_saved(run, saved, tmp_path):
    with pytest.raises(Diverged, match=r"loss is nan at step 4; .* --workdir, or config.train.on_bad_step = skip$"):
        run(bad_step=4, checkpoint_every=2)
    assert sorted(saved) == [2]
    assert steps_of(tmp_path) == [1, 2, 3]


def test_a_bad_step_can_be_skipped_and_is_logged(run, tmp_path):
    run(bad_step=4, steps=6, on_bad_step="skip")
    assert steps_of(tmp_path) == [1, 2, 3, 5, 6]
    (skipped,) = read_metrics(tmp_path / "metrics.jsonl", "skipped")
    assert (skipped["step"], skipped["loss"]) == (4, "nan")


def test_too_many_skipped_steps_in_a_row_stop_the_run(run):
    with pytest.raises(Diverged, match=r"loss is nan at step 4, after 1 skipped steps in a row; "):
        run(bad_step=4, steps=6, on_bad_step="skip", max_skipped=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_the_same_call_resumes(run, saved, tmp_path, capsys, number, code):
    def stop(batch):
        if batch == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Preempted, match=f"stopped by {number.name}; step 3 of 6 is saved") as ended:
        run(hook=stop, steps=6)
    assert ended.value.exit_code == code
    assert f"stopped by {number.name}; step 3 of 6 is saved. Resume with: " in capsys.readouterr().out
    assert sorted(saved) == [3]

    summary, calls = run(steps=6)
    assert calls[0] == ("train_step", 4)
    assert summary["valid"]["loss"] == sum(range(7)) * NUM_ATTRIBUTES / 5  # each batch once
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert steps_of(tmp_path, "start") == [0, 3]


def test_steps_taken_again_after_a_kill_are_logged_once(run, tmp_path):
    class Killed(Exception):
        pass

    def kill(batch):
        if batch == 6:
            raise Killed

    with pytest.raises(Killed):
        run(hook=kill, steps=8, checkpoint_every=3)
    assert steps_of(tmp_path) == [1, 2, 3, 4]
    run(steps=8, checkpoint_every=3)
    assert steps_of(tmp_path) == list(range(1, 9))


def test_a_finished_run_only_reports_its_result(run, capsys):
    first, _ = run()
    again, calls = run()
    assert not calls
    assert (again["step"], again["train"], again["valid"]) == (4, first["train"], first["valid"])
    assert "step 4 of 4" in capsys.readouterr().out


def test_a_finished_run_can_be_extended(run, tmp_path):
    run()
    run()  # finished already: not recorded as a start
    summary, calls = run(steps=6)
    assert calls[0] == ("train_step", 5) and summary["step"] == 6
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]
    manifest = read_manifest(tmp_path)
    assert [(start["step"], start["changed"]) for start in manifest["starts"]] == [(0, {}), (4, {"train.steps": [4, 6]})]
    assert manifest["config"]["train"]["steps"] == 6 and manifest["config"]["continuation"]["prompt_bars"] == 4


def test_at_the_time_limit_the_run_validates_and_saves(run, capsys):
    summary, calls = run(steps=100, max_minutes=1e-9)
    assert summary["step"] < 100
    assert calls[-2:] == [("validate", summary["step"]), ("save", summary["step"])]
    assert "the same command continues" in capsys.readouterr().out


def test_a_run_without_a_logged_step_has_a_summary(run):
    summary, _ = run(steps=100, log_every=50, max_minutes=1e-9)
    assert summary["train"] is None and summary["valid"]["step"] == summary["step"]


def test_another_run_is_refused_before_any_file_changes(run, tmp_path):
    run(orbax=True)
    files = tmp_path / "metrics.jsonl", tmp_path / "run.json"
    before = [file.read_bytes() for file in files]
    with pytest.raises(UserError, match="another run: config.train.seed is 0 there and 1 here"):
        run(orbax=True, seed=1)
    assert [file.read_bytes() for file in files] == before


def test_a_second_signal_ends_the_process():
    before = signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT and stop.exit_code == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
