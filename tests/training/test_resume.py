"""Real runs on real shards: stopped and resumed, they end where an unbroken run ends, bit for bit."""

import os
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from sage_jax.errors import Preempted, UserError
from sage_jax.music.events import ATTRIBUTES
from sage_jax.training import loop
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
from sage_jax.training.config import RunConfig
from sage_jax.training.loop import train
from sage_jax.training.metrics import read_metrics
from tests.training.tiny import tiny_config


class Watched:
    """A dataset that notes the batches that are taken from it, and sends SIGTERM with the `stop_at`-th."""

    def __init__(self, dataset, taken, stop_at):
        self.dataset, self.taken, self.stop_at = dataset, taken, stop_at

    def __iter__(self):
        self.iterator = iter(self.dataset)
        self.get_state, self.set_state = self.iterator.get_state, self.iterator.set_state
        return self

    def __next__(self):
        batch = next(self.iterator)
        self.taken.append(batch["events"])
        if len(self.taken) == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch


@pytest.fixture
def run(monkeypatch, workdir, compiled_once):
    """run(folder, stop_at=) -> the batches that were taken."""
    datasets = loop.datasets

    def run(folder, stop_at=None):
        taken = []

        def watched(config, *_):
            train_data, valid_data = datasets(config, workdir / "data", config.tokenizer)
            return Watched(train_data, taken, stop_at), valid_data

        monkeypatch.setattr(loop, "datasets", watched)
        train(tiny_config(), folder)
        return taken

    return run


def restored(folder):
    config = RunConfig.from_dict(tiny_config().to_dict())
    programs = loop.make_programs(config, config.tokenizer)
    with Checkpoints(folder, config) as checkpoints:
        return checkpoints.restore(programs.init(1))


def test_four_steps_are_two_and_a_restart_and_two(run, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    batches = run(whole)
    with pytest.raises(Preempted):
        run(parts, stop_at=2)
    assert int(restored(parts)[0].step) == 2
    after = run(parts)
    assert len(batches) == 4 and len(after) == 2
    np.testing.assert_array_equal(np.stack(batches)[2:], np.stack(after))

    (state, place), (resumed, resumed_place) = restored(whole), restored(parts)
    assert place == resumed_place
    assert int(resumed.step) == 4
    for (path, one), two in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(resumed), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), jax.tree_util.keystr(path)
    for kind in ("train", "valid"):
        lines = [read_metrics(folder / "metrics.jsonl", kind) for folder in (whole, parts)]
        assert [(line["step"], line["loss"]) for line in lines[0]] == [(line["step"], line["loss"]) for line in lines[1]]


def test_the_sampler_finds_what_was_validated(run, workdir, tmp_path):
    run(tmp_path / "trained")
    params, config, step, _ = load_for_sampling(tmp_path / "trained")
    last = read_metrics(tmp_path / "trained" / "metrics.jsonl", "valid")[-1]
    assert step == last["step"] == 4
    programs = loop.make_programs(config, config.tokenizer)
    _, valid = loop.datasets(config, workdir / "data", config.tokenizer)
    assert loop.evaluate(programs.score.compile(), params, map(programs.place, valid), ATTRIBUTES)["loss"] == last["loss"]


def test_without_shards_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(UserError, match="launch.preprocess"):
        train(tiny_config(), tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_sigterm_ends_a_real_process_in_good_order(workdir):
    flags = ["--config=configs/sage.py:debug", "--config.model.layers=1", "--config.train.steps=100000"]
    command = [sys.executable, "-m", "launch.train", *flags, f"--workdir={workdir}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not read_metrics(workdir / "metrics.jsonl", "train"):
            time.sleep(0.1)
        process.terminate()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    step = read_metrics(workdir / "metrics.jsonl", "train")[-1]["step"]
    assert f"step {step} of 100000 is saved" in out
    assert out.strip().endswith(f"Resume with: {shlex.join(command)}")
    assert "Traceback" not in err
    assert load_for_sampling(workdir)[2] == step
