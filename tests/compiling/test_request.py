"""Requests for this machine's CPU, and mistakes in one line. docs/compiling.md has the commands for other targets."""

import json
import pathlib
import subprocess
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest

from sage_jax.compiling import memory, programs, targets
from sage_jax.compiling.memory import check_fits, stated_excess
from sage_jax.compiling.report import lines
from sage_jax.compiling.request import compile_for
from sage_jax.config import MeshConfig, RunConfig
from sage_jax.errors import UserError
from sage_jax.training.run_manifest import RUN_FILE
from sage_jax.training.sharding import check_hosts, host_by_host, make_mesh, spans_hosts
from tests.training.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]
NESTED = dict(architecture="nested", kv_sharing="mqa", embed_dim=16, num_layers=1, num_heads=2, head_dim=4, mlp_dim=16)


@pytest.mark.process
def test_an_event_step_needs_its_parameters_and_its_cache(tmp_path):
    output, text = tmp_path / "decode.json", tmp_path / "decode.txt"
    flags = ["--config=configs/sage.py:debug", "--target=cpu", "--capacity=64", f"--output={output}", f"--hlo={text}"]
    flags += [f"--config.model.{name}={value}" for name, value in NESTED.items()]
    ended = subprocess.run(
        [sys.executable, "-m", "launch.compile", *flags], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "decode of nested-mqa for cpu" in ended.stdout and "copies of buffers of the cache: 0" in ended.stdout
    report = json.loads(output.read_text())
    assert report["kernels"] > 0 and report["copies"] == 0 and report["collectives"] == []
    assert report["memory"]["arguments"] > report["needed"] / 2 and report["ratio"] > 0.5
    assert text.read_text().startswith("HloModule jit_event_step")


def test_a_run_in_a_folder_gives_its_config_and_flags_override_it(tmp_path):
    config = tiny_config(model=NESTED).to_dict()
    (tmp_path / RUN_FILE).write_text(json.dumps({"config": config, "starts": []}))
    report = compile_for("cpu", "train", tiny_config().to_dict(), tmp_path, {"train.batch_size": 8, "model.remat": "full"})
    assert report.model == "nested-mqa" and report.mesh == {"data": 1, "fsdp": 1, "tensor": 1}
    assert report.needed is report.copies is None and report.collectives == []
    assert report.once.kernels + report.nested.kernels > 20 and report.memory and report.memory.aliased
    assert sum(cost.moved for cost in report.passes.values()) == report.moved
    assert sum(cost.kernels for cost in report.passes.values()) == report.once.kernels
    assert report.passes["update"].kernels > 20  # on a CPU the other passes are in a loop
    said = lines(report)
    assert "train of nested-mqa for cpu (cpu, one device)" in said[0] and any("update: " in line for line in said)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (dict(target="h1000"), "--target is 'h1000'; known are h100, h100:N"),
        (dict(target="v5e:2"), "--target is 'v5e:2', but its topology has 2 sides"),
        (dict(target="v5e"), "--target is 'v5e'; known are"),
        (dict(target="h100:16"), "--target is 'h100:16', but one host has at most 8"),
        (dict(target="cpu:64"), "jax already runs with 1 CPU devices; start another process"),
        (dict(program="dance"), "--program is 'dance'; choose one of decode, loop, prefill, begin, train"),
        (dict(rows=0), "--rows is 0; give at least 1"),
        (dict(program="prefill", capacity=16), "--capacity is 16; --program=prefill reads 32 events at once"),
        (dict(workdir="nowhere"), "there is no run in nowhere"),
        (dict(config=dict(mesh=dict(fsdp=4)), program="train"), "config.mesh is data the rest x fsdp 4 x tensor 1, but"),
        (dict(config=dict(representation=dict(name="remi", merges=7))), "config.representation.merges is 7, and merges are"),
        (dict(config=dict(partitioner="pmap"), program="train"), "config.partitioner is pmap, whose programs are for"),
    ],
    ids=str,
)
def test_a_mistake_is_named(wanted, message, monkeypatch):
    assert jax.device_count() == 1  # before a flag could change it
    monkeypatch.setenv("XLA_FLAGS", "")
    values = dict(target="cpu", program="decode", capacity=64) | wanted
    config = tiny_config(**values.pop("config", {})).to_dict()
    with pytest.raises(UserError) as error:
        compile_for(values.pop("target"), values.pop("program"), config, **values)
    assert str(error.value).startswith(message) or message in str(error.value)


@pytest.mark.parametrize(("target", "extra"), [("v5e:2x2", "jax[tpu]"), ("h100", "jax[cuda13]")])
def test_a_missing_compiler_is_named_with_its_extra(target, extra, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        targets.find_target(target)
    assert str(error.value).endswith(f'which is not installed: pip install "{extra}"')


def test_a_missing_library_of_a_train_step_is_named(monkeypatch):
    def make(*_):
        raise RuntimeError("cuDNN not found.")

    monkeypatch.setattr(programs, "make_train_functions", make)
    with pytest.raises(UserError, match="^--target=cpu --program=train needs cuDNN, .*attention_impl=chunked$"):
        compile_for("cpu", "train", tiny_config().to_dict())


def test_a_topology_that_its_compiler_does_not_know_takes_one_line(monkeypatch):
    monkeypatch.setattr(targets.os, "environ", {})

    def make(**_):
        raise RuntimeError("INVALID_ARGUMENT: not divisible\nand more")

    monkeypatch.setattr(targets.topologies, "get_topology_desc", make)
    monkeypatch.setattr(targets, "_require", lambda *_: None)
    with pytest.raises(UserError, match="^--target=v5e:3x3: INVALID_ARGUMENT: not divisible$"):
        targets.find_target("v5e:3x3")


BASE = dict(batch_size=64, steps=1)


@pytest.mark.parametrize(
    ("used", "advice"),
    [
        (40.0, "--config.train.batch_size=24, --config.train.grad_accum_steps=4, --config.model.remat=full"),
        (16.1, "--config.train.batch_size=56, --config.train.grad_accum_steps=2, --config.model.remat=full"),
    ],
)
def test_what_would_make_a_train_step_fit(used, advice):
    run = RunConfig.from_dict(tiny_config(train=BASE, model=dict(num_layers=4)).to_dict())
    with pytest.raises(UserError) as error:
        check_fits("train", run, 8, used * 2**30, 16 * 2**30)
    assert str(error.value) == (
        f"the train program needs {used:.2f} GiB of each device, {used - 16:.2f} GiB more than its 16.00; by estimate, one of "
        f"these makes it fit: {advice}"
    )
    check_fits("train", run, 8, 15 * 2**30, 16 * 2**30)


def test_a_state_that_does_not_fit_needs_fsdp(monkeypatch):
    shapes = {"kernel": jax.ShapeDtypeStruct((1 << 30,), "float32")}  # 16 GiB with its gradient and moments
    monkeypatch.setattr(memory, "abstract_params", lambda config: shapes)
    run = RunConfig.from_dict(tiny_config(train=BASE).to_dict())
    with pytest.raises(UserError, match="makes it fit: --config.mesh.fsdp=2$"):
        check_fits("train", run, 8, 18 * 2**30, 12 * 2**30)
    with pytest.raises(UserError, match="by estimate no single one of mesh.fsdp, model.remat"):
        check_fits("train", run, 1, 18 * 2**30, 12 * 2**30)


def test_a_compiler_states_how_much_is_too_much():
    message = "Ran out of memory in memory space hbm. Used 25.52G of 15.75G hbm. Exceeded hbm capacity by 9.77G."
    assert stated_excess(RuntimeError(message)) == (25.52 * 2**30, 15.75 * 2**30)
    message = "the total memory required for HLO temporaries (100.27G) exceeds available HBM (15.75G). HLO"
    assert stated_excess(RuntimeError(message)) == (100.27 * 2**30, 15.75 * 2**30)
    assert stated_excess(RuntimeError("INTERNAL: something else")) is None


def test_rows_must_not_be_shared_by_hosts():
    """By the hosts of the mesh's own devices, which may be those of a topology: four by four chips of four hosts."""
    places = [(row, column) for row in range(4) for column in range(4)]
    hosts = [2 * (row // 2) + column // 2 for row, column in places]
    pod = [types.SimpleNamespace(process_index=host, id=number) for number, host in enumerate(hosts)]
    assert spans_hosts(np.array(pod).reshape(4, 1, 4)) and not spans_hosts(np.array(pod).reshape(8, 1, 2))
    devices = host_by_host(pod)
    mesh: Any = lambda tensor: types.SimpleNamespace(devices=devices.reshape(-1, 1, tensor), shape={"tensor": tensor})
    check_hosts(mesh(2))
    check_hosts(mesh(4))
    with pytest.raises(UserError, match="config.mesh.tensor is 8; give a divisor of 4, the number of devices per host"):
        check_hosts(mesh(8))
    assert make_mesh(MeshConfig(), jax.devices()[:1]).size == 1
