"""Runs on several hosts: real processes on this machine, with collectives between them."""

import json
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
from sage_jax.training.hosts import check_agreement, initialize_distributed
from sage_jax.training.train_functions import make_train_functions
from tests.training.processes import end, free_address, has_reached, kill, last_step, losses, spawn, start_hosts, wait_for
from tests.training.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("quick_init")  # in this process, which trains nothing
ENDLESS = "--config.train.steps=100000"
STEPS = 12  # of an undisturbed run that are compared


def run_config(**sections) -> RunConfig:
    return RunConfig.from_dict(tiny_config(**sections).to_dict())


@pytest.fixture(scope="module")
def stopped(shards, tmp_path_factory):
    """(workdir, outputs of each host) of a run on two hosts with two devices each, undisturbed until SIGTERM to one of them."""
    workdir = tmp_path_factory.mktemp("stopped")
    hosts = start_hosts(2, workdir, shards, ENDLESS, "--config.train.checkpoint_every=100000", devices=2)
    wait_for(hosts[0], has_reached(workdir, STEPS))
    hosts[1].terminate()
    return workdir, end(hosts, 143)


@pytest.mark.process
def test_sigterm_to_one_host_stops_all_after_the_same_step(stopped):
    workdir, ((primary, _), (other, _)) = stopped
    step = load_for_sampling(workdir)[2]
    assert f"stopped by SIGTERM; step {step} of 100000 is saved" in primary and "stopped" not in other
    assert step == last_step(workdir) >= STEPS
    assert "a mesh of data 4" in primary and "notes/s" in primary and "notes/s" not in other


@pytest.mark.process
def test_after_sigkill_on_a_host_the_run_resumes_bitwise_equal(stopped, shards, tmp_path):
    hosts = start_hosts(2, tmp_path, shards, ENDLESS, devices=2)
    wait_for(hosts[0], has_reached(tmp_path, 6))
    kill(*reversed(hosts))
    end(start_hosts(2, tmp_path, shards, f"--config.train.steps={max(STEPS, last_step(tmp_path) + 1)}", devices=2))
    resumed = losses(tmp_path)
    expected = {(kind, step): loss for (kind, step), loss in losses(stopped[0]).items() if step <= STEPS}
    assert len(expected) >= STEPS + 3
    assert {key: resumed[key] for key in expected} == expected


@pytest.fixture(scope="module")
def pair(shards, tmp_path_factory):
    """(folder, results of each host, stderr of each host) of host_pair.py. Host 1 has a damaged newest checkpoint."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(shards, folder / "data")
    config = run_config()
    state = make_train_functions(config, config.tokenizer).init(0)
    with Checkpoints(folder / "restored_0", config) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state.replace(step=jnp.int32(step)), {})
    shutil.copytree(folder / "restored_0", folder / "restored_1")
    (folder / "restored_1" / "checkpoints" / "2" / "state" / "manifest.ocdbt").write_text("")
    command, address = [sys.executable, "-m", "tests.training.host_pair"], free_address()
    outputs = end([spawn([*command, address, str(host), str(folder)]) for host in range(2)], code=2)
    results = [json.loads((folder / f"results_{host}.json").read_text()) for host in range(2)]
    return folder, results, [err for _, err in outputs]


@pytest.mark.process
def test_pmap_on_two_hosts_has_the_losses_of_the_mesh(stopped, pair):
    found, expected = losses(pair[0] / "pmap"), losses(stopped[0])
    common = found.keys() & expected.keys()
    assert len(common) >= 3
    # The order of float sums over devices differs.
    np.testing.assert_allclose([found[key] for key in common], [expected[key] for key in common], rtol=2e-5)


@pytest.mark.process
@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("other config", "the config of host 1 differs from host 0"),
        ("no shards on host 0", "host 0: .*nowhere holds no finished token shards"),
        ("merges", "host 0: .*merges"),
    ],
)
def test_a_failure_on_one_host_is_raised_on_all(pair, scenario, message):
    folder, results, _ = pair
    for result in results:
        assert re.search(message, result[scenario]) and "\n" not in result[scenario]
    assert not (folder / "run" / "checkpoints").exists()


@pytest.mark.process
def test_a_failure_on_one_host_ends_all_programs_with_one_line(pair):
    folder, _, errs = pair
    for err in errs:
        assert f"error: host 1: {folder / 'nowhere'} holds no finished token shards" in err and "Traceback" not in err


@pytest.mark.process
def test_hosts_restore_the_newest_checkpoint_that_all_can_read(pair):
    """Each host has a folder of its own, as if the reads of host 1 failed."""
    folder, results, errs = pair
    assert [result["restored step"] for result in results] == [1, 1]
    assert f"host 1: cannot read the checkpoint {folder / 'restored_1'}" in errs[0] and "going back to step 1" in errs[0]
    assert not (folder / "restored_0" / "checkpoints" / "2").exists()


@pytest.mark.parametrize(("column", "name"), list(enumerate(["the config", "the code", "the versions", "the shards"])))
def test_hosts_must_agree(monkeypatch, column, name):
    def allgather(own):
        other = own.copy()
        other[column] += 1
        return np.stack([own, own, other])

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", allgather)
    with pytest.raises(UserError, match=f"^{name}.* of host 2 differs from host 0; start every host with the same command"):
        check_agreement(run_config(), "fingerprint")


def test_max_minutes_is_refused_on_several_hosts(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.stack([own, own]))
    check_agreement(run_config(), "fingerprint")
    with pytest.raises(UserError, match="config.train.max_minutes is for a single host"):
        check_agreement(run_config(train=dict(max_minutes=1.0)), "fingerprint")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 2, 0), "--num_processes and --process_id need --coordinator"),
        (("localhost:1", None, None), "--coordinator=HOST:PORT needs --num_processes and --process_id"),
        (("localhost:1", 2, 2), "--process_id is 2; with --num_processes=2 give a number from 0 to 1"),
    ],
)
def test_incomplete_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        initialize_distributed(*arguments)
