"""The scripts as processes: help, and mistakes in one line."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process
SCRIPTS = ("preprocess", "train", "sample", "evaluate", "benchmark", "study", "listening", "compare")


def run(script, *flags):
    return subprocess.run([sys.executable, "-m", f"launch.{script}", *flags], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", ["train", "sample"])
def test_help_is_no_mistake(script):
    found = run(script, "--help")
    assert found.returncode == 0 and "--workdir" in found.stdout and "--config" in found.stdout


def test_a_misspelt_field_takes_one_line():
    wrong = run("train", "--config=configs/sage.py:debug", "--workdir=nowhere", "--config.model.size=3")
    assert wrong.returncode == 2
    (line,) = wrong.stderr.strip().splitlines()
    reason = "sets a field that the config doesn't have; known are architecture, attention_impl, "
    assert line.startswith(f"error: --config.model.size=3 {reason}")
