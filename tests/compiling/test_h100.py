"""Kernels of an event step on an H100, counted where the compiler of NVIDIA GPUs is installed; see docs/compiling.md."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NESTED = ("architecture=nested", "kv_sharing=mqa")
FLAT = ("kv_sharing=mqa",)
MOST = {NESTED: 20, (*NESTED, "decode_impl=xla"): 330, (*FLAT, "decode_impl=fused"): 20, (*FLAT, "decode_impl=xla"): 1350}

if importlib.util.find_spec("jax_cuda13_plugin"):

    @pytest.mark.process
    @pytest.mark.parametrize("model", MOST, ids=",".join)
    def test_an_event_step_of_base_is_few_kernels(model, tmp_path):
        output = tmp_path / "decode.json"
        flags = ["--config=configs/sage.py:base", "--target=h100", f"--output={output}"]
        flags += [f"--config.model.{field}" for field in model]
        command = [sys.executable, "-m", "launch.compile", *flags]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
        report = json.loads(output.read_text())
        assert 0 < report["kernels"] <= MOST[model] and report["copies"] == 0
        if "decode_impl=xla" in model:
            assert report["moved"] < 1.4 * report["needed"]
        assert report["once"]["conditionals"] == report["once"]["loops"] == sum(report["nested"].values()) == 0
