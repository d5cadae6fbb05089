"""Runs of several hosts: real processes on this machine, with collectives between them."""

import shutil
import subprocess
import sys
from subprocess import PIPE

import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
from sage_jax.training.config import RunConfig
from sage_jax.training.hosts import join
from sage_jax.training.programs import make_programs
from tests.training.launched import end, free_address, has_reached, kill, last_step, losses, start_hosts, wait_for
from tests.training.tiny import tiny_config

LONG = "--config.train.steps=100000"
TWELVE = "--config.train.steps=12"


@pytest.fixture(scope="module")
def unbroken(shards, tmp_path_factory):
    """The losses of a run of two hosts with two devices each that nothing happened to."""
    workdir = tmp_path_factory.mktemp("unbroken")
    (first, _), (second, _) = end(start_hosts(2, workdir, shards, TWELVE, devices=2))
    assert "a mesh of data 4" in first and "notes/s" in first and "notes/s" not in second
    return losses(workdir)


def test_a_host_is_killed_and_the_run_goes_on_as_if_nothing_had_been(unbroken, shards, tmp_path):
    hosts = start_hosts(2, tmp_path, shards, LONG, devices=2)
    wait_for(hosts[0], has_reached(tmp_path, 6))
    kill(*reversed(hosts))
    end(start_hosts(2, tmp_path, shards, f"--config.train.steps={max(12, last_step(tmp_path) + 1)}", devices=2))
    found = losses(tmp_path)
    assert {place: found[place] for place in unbroken} == unbroken


def assert_close(found, expected):
    """Sums of floats over other devices are sums in another order."""
    np.testing.assert_allclose([found[place] for place in expected], list(expected.values()), rtol=2e-5)


def test_four_hosts_that_share_the_parameters_are_as_two(unbroken, shards, tmp_path):
    end(start_hosts(4, tmp_path, shards, TWELVE, "--config.mesh.fsdp=4"))
    assert_close(losses(tmp_path), unbroken)
    assert load_for_sampling(tmp_path)[2] == 12  # which is one host


def test_a_notice_to_one_host_stops_all_after_the_same_step(unbroken, shards, tmp_path):
    """Under pmap, which is the same run too."""
    hosts = start_hosts(2, tmp_path, shards, LONG, "--config.train.checkpoint_every=100000", "--config.parallel=pmap")
    wait_for(hosts[0], has_reached(tmp_path, 3))
    hosts[1].terminate()
    (out, _), (silent, _) = end(hosts, 143)
    step = load_for_sampling(tmp_path)[2]
    assert f"stopped by SIGTERM; step {step} of 100000 is saved" in out and "stopped" not in silent
    found = losses(tmp_path)
    assert step == last_step(tmp_path)
    assert_close(found, {place: loss for place, loss in unbroken.items() if place in found})


def test_hosts_that_were_started_differently_end_before_anything_is_computed(shards, tmp_path):
    hosts = start_hosts(2, tmp_path, shards, TWELVE, each={1: ["--config.optimizer.learning_rate=0.5"]})
    for _, err in end(hosts, 2):
        assert "error: the config of host 1 is not that of host 0" in err and "Traceback" not in err
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("host", [0, 1])
def test_where_one_host_lacks_its_shards_all_end_and_name_it(shards, tmp_path, host):
    hosts = start_hosts(2, tmp_path / "run", shards, TWELVE, each={host: [f"--config.data.shards={tmp_path / 'nowhere'}"]})
    for _, err in end(hosts, 2, timeout=150):
        assert f"error: host {host}: {tmp_path / 'nowhere'} holds no finished token shards" in err and "Traceback" not in err


def test_where_the_first_host_can_not_learn_merges_all_end(shards, tmp_path):
    """The others wait for it at that time."""
    flags = ("--config.representation.name=remi", "--config.representation.merges=19000")
    for _, err in end(start_hosts(2, tmp_path, shards, TWELVE, *flags), 2, timeout=150):
        assert "error: host 0: " in err and "merges" in err and "Traceback" not in err


def test_two_hosts_take_the_newest_checkpoint_that_both_can_read(tmp_path):
    """The second one has a folder of its own, where the newest is damaged, as if its own reads failed."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    run = RunConfig.from_dict(tiny_config().to_dict())
    state = make_programs(run, run.tokenizer).init(0)
    with Checkpoints(mine, run) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state.replace(step=jnp.int32(step)), {})
    shutil.copytree(mine, other)
    (other / "checkpoints" / "2" / "state" / "manifest.ocdbt").write_text("")
    command, address = [sys.executable, "-m", "tests.training.restored"], free_address()
    begin = lambda *arguments: subprocess.Popen([*command, address, *arguments], stdout=PIPE, stderr=PIPE, text=True)
    (out, err), (out_of_second, _) = end([begin("0", str(mine)), begin("1", str(other))], timeout=150)
    assert out.splitlines()[-1] == out_of_second.splitlines()[-1] == "1"
    assert f"host 1: cannot read the checkpoint {other}" in err and "going back to step 1" in err
    assert not (mine / "checkpoints" / "2").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", 2, 0), "--num_hosts and --host need --coordinator"),
        (("localhost:1", None, None), "--coordinator=HOST:PORT needs --num_hosts and --host"),
        (("localhost:1", 2, 2), "--host is 2; with --num_hosts=2 give a number from 0 to 1"),
    ],
)
def test_half_told_hosts_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        join(*arguments)
