"""Runs of `launch.train` that are done real harm to, in processes of their own: killed, out of disk, moved to other devices."""

import resource

import numpy as np
import pytest

from sage_jax.training.checkpoint import load_for_sampling
from tests.training.launched import finish, has_reached, kill, last_step, losses, start, wait_for


@pytest.fixture(scope="module")
def unbroken(shards, tmp_path_factory):
    """The losses of a run of 12 steps that nothing happened to."""
    workdir = tmp_path_factory.mktemp("unbroken")
    finish(workdir, shards, "--config.train.steps=12")
    found = losses(workdir)
    assert len(found) == 12 + 3
    return found


def test_killed_in_the_middle_it_goes_on_as_if_nothing_had_been(unbroken, shards, tmp_path):
    with start(tmp_path, shards, "--config.train.steps=100000") as process:
        wait_for(process, has_reached(tmp_path, 6))
        kill(process)
    finish(tmp_path, shards, f"--config.train.steps={max(12, last_step(tmp_path) + 1)}")
    found = losses(tmp_path)
    # To the last bit: the same program on the same crops.
    assert {place: found[place] for place in unbroken} == unbroken


def test_on_other_devices_it_goes_on_to_the_same_losses(unbroken, shards, tmp_path):
    finish(tmp_path, shards, "--config.train.steps=4", "--config.mesh.fsdp=4", devices=8)
    out, _ = finish(tmp_path, shards, "--config.train.steps=8", "--config.parallel=pmap", devices=2)
    assert "pmap over 2 devices" in out
    finish(tmp_path, shards, "--config.train.steps=12")
    found = losses(tmp_path)
    assert found.keys() == unbroken.keys()
    # Sums of floats over devices are sums in another order.
    np.testing.assert_allclose([found[place] for place in unbroken], list(unbroken.values()), rtol=2e-5)


def test_a_full_disk_ends_it_in_one_line_with_the_last_checkpoint_whole(shards, tmp_path):
    """Files can't grow beyond four kilobytes any more, which the system says as it says that a disk is full."""
    with start(tmp_path, shards, "--config.train.steps=100000") as process:
        wait_for(process, (tmp_path / "checkpoints" / "4").exists)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "error: cannot write" in err and "make room" in err and "Traceback" not in err
    step = load_for_sampling(tmp_path)[2]
    assert step % 4 == 0 and step >= 4
    finish(tmp_path, shards, f"--config.train.steps={step + 1}")
    assert load_for_sampling(tmp_path)[2] == step + 1


def test_sigterm_saves_within_the_time_that_a_machine_gives(shards, tmp_path):
    """Clouds take a machine back half a minute after the notice."""
    with start(tmp_path, shards, "--config.train.steps=100000", "--config.train.checkpoint_every=100000") as process:
        wait_for(process, has_reached(tmp_path, 2))
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert load_for_sampling(tmp_path)[2] == last_step(tmp_path)
