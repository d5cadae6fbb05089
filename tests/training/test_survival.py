"""Runs of `launch.train` in processes that are killed, stopped or out of disk space."""

import resource
import shlex

import pytest

from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.loop import train
from tests.training.processes import (
    command,
    config_of,
    has_reached,
    kill,
    last_step,
    losses,
    spawn,
    start,
    wait_for,
    with_programs,
)

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("compiled_once")]
ENDLESS = "--config.train.steps=100000"


def train_here(workdir, shards, steps):
    """The run of processes.CONFIG, in this process."""
    train(config_of(shards, steps=steps), workdir)


def test_after_sigkill_the_run_resumes_bitwise_equal(shards, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with start(killed, shards, ENDLESS) as process:
        wait_for(process, has_reached(killed, 6))
        kill(process)
    steps = max(12, last_step(killed) + 1)
    train_here(killed, shards, steps)
    train_here(undisturbed, shards, steps)
    expected, actual = losses(undisturbed), losses(killed)
    assert len(expected) >= 12 + 3
    assert {key: actual[key] for key in expected} == expected


def test_a_full_disk_ends_the_run_with_one_line_and_an_intact_checkpoint(shards, tmp_path):
    """A limit of four kilobytes on file sizes raises the same OSError as a full disk."""
    with start(tmp_path, shards, ENDLESS) as process:
        wait_for(process, (tmp_path / "checkpoints" / "4").exists)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "error: cannot write" in err and "free some space" in err and "Traceback" not in err
    step = load_for_sampling(tmp_path)[2]
    assert step % 4 == 0 and step >= 4
    train_here(tmp_path, shards, step + 1)
    assert load_for_sampling(tmp_path)[2] == step + 1


def test_sigterm_saves_the_state_within_thirty_seconds(shards, tmp_path):
    """Cloud machines are stopped half a minute after the notice."""
    arguments = command(tmp_path, shards, ENDLESS, "--config.train.checkpoint_every=100000")
    with spawn(arguments, env=with_programs()) as process:
        wait_for(process, has_reached(tmp_path, 2))
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    step = load_for_sampling(tmp_path)[2]
    assert step == last_step(tmp_path)
    assert f"step {step} of 100000 is saved" in out and out.strip().endswith(f"Resume with: {shlex.join(arguments)}")
    assert "Traceback" not in err
