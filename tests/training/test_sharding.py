"""Runs over a mesh and under pmap against a run on one device, on eight fake ones in a process of their own."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import baselines, sage
from sage_jax.errors import UserError
from sage_jax.models.forms import make_model
from sage_jax.training.config import MeshConfig, RunConfig
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.placed import check_rows
from sage_jax.training.programs import make_programs
from sage_jax.training.sharding import make_mesh, paths, spec_of
from sage_jax.training.state import init_state
from tests.training.on_devices import RUNS
from tests.training.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]
SPREAD = [name for name in RUNS if name != "one"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each of RUNS found."""
    folder = tmp_path_factory.mktemp("devices")
    for names in (["one"], SPREAD):
        command = [sys.executable, "-m", "tests.training.on_devices", folder, *names]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert said.returncode == 0, said.stderr
    return {name: dict(np.load(folder / f"{name}.npz", allow_pickle=True)) for name in RUNS}


@pytest.mark.parametrize("name", SPREAD)
def test_however_it_is_spread_a_run_is_the_same(runs, name):
    one, other = runs["one"], runs[name]
    for counted in ("notes", "tokens"):
        np.testing.assert_array_equal(other[counted], one[counted])
    for measured in ("loss", "pitch", "grad_norm", "param_norm", "score"):
        np.testing.assert_allclose(other[measured], one[measured], rtol=2e-6, err_msg=measured)
    np.testing.assert_allclose(other["gradients"], one["gradients"], rtol=1e-4, atol=1e-7)
    # Adam divides by the root of a mean square: where that is tiny, a difference in the last bit is not.
    differences = np.abs(other["params"] - one["params"])
    assert differences.mean() < 1e-7 and differences.max() < 3e-4


def test_fsdp_cuts_what_a_device_holds(runs):
    assert runs["fsdp"]["held"] < 0.6 * runs["one"]["held"]
    assert runs["data"]["held"] == runs["one"]["held"]
    assert "all-gather" in runs["fsdp"]["sent"].item()


def test_rows_and_heads_need_sums_alone(runs):
    """Nothing is moved between devices to be attended to, not even in the scopes that have heads of an attribute's own."""
    for name in ("data", "micro_batches"):
        assert set(runs[name]["sent"].item()) == {"all-reduce"}, name


def test_what_an_axis_does_not_divide_is_told(runs):
    """One key-value head on two devices."""
    told = " ".join(runs["micro_batches"]["remarks"])
    assert "mesh of data 4 x fsdp 1 x tensor 2" in told and "key_value_0 (1 by 2)" in told and "query" not in told


@pytest.mark.parametrize("config", [*(f"{system}-base" for system in baselines.SYSTEMS), "base"])
def test_every_parameter_of_every_model_has_a_rule(config):
    made = (sage if config == "base" else baselines).get_config(config)
    made.model.update(layers=1, width=40, mlp_width=16)
    run = RunConfig.from_dict(made.to_dict())
    state = jax.eval_shape(lambda: init_state(0, model=make_model(run.model), tx=make_optimizer(run.optimizer, 1)))
    mesh = make_mesh(MeshConfig())
    for path, leaf in paths(state):
        spec_of(path, leaf.shape, mesh)
    with pytest.raises(LookupError, match="block_0/mystery"):
        spec_of("params/block_0/mystery", (2, 3), mesh)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (dict(mesh=dict(data=3, fsdp=2)), r"config.mesh is data 3 x fsdp 2 x tensor 1, but there are 1 devices"),
        (dict(mesh=dict(tensor=2)), r"config.mesh is data the rest x fsdp 1 x tensor 2"),
        (dict(mesh=dict(fsdp=0)), r"config.mesh.fsdp is 0"),
        (dict(parallel="pmap", mesh=dict(data=1)), r"config.mesh is for config.parallel = mesh"),
        (dict(parallel="tmap"), r"config.parallel is 'tmap'"),
    ],
)
def test_a_mesh_that_does_not_fit_is_told_before_anything_is_computed(sections, said):
    with pytest.raises(UserError, match=said):
        run = RunConfig.from_dict(tiny_config(**sections).to_dict())
        make_programs(run, run.tokenizer)


def test_rows_that_devices_do_not_divide_are_told():
    run = RunConfig.from_dict(tiny_config(train=dict(batch_size=12, accumulate=2)).to_dict())
    said = "batch_size is 12, but its rows go to 4 devices in each of 2 micro-batches; give a multiple of 8"
    with pytest.raises(UserError, match=said):
        check_rows(run, 4)
