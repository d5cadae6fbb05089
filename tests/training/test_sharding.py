"""Runs under each partitioner on eight fake devices, compared with a run on one device."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import baselines, sage
from sage_jax.config import MeshConfig, RunConfig
from sage_jax.errors import UserError
from sage_jax.models.registry import build_model
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.placement import check_batch_size
from sage_jax.training.sharding import make_mesh, partition_spec, paths
from sage_jax.training.state import init_state
from sage_jax.training.train_functions import make_train_functions
from tests.training.on_devices import LAYOUTS, RESUMED_AT, initial_parameters, run_steps
from tests.training.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Layout -> results of on_devices.py; 'one' is the run on one device, in this process."""
    folder = tmp_path_factory.mktemp("devices")
    command = [sys.executable, "-m", "tests.training.on_devices", folder]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    names = (*LAYOUTS, "initial", "resumed", "fsdp")
    results = {name: dict(np.load(folder / f"{name}.npz", allow_pickle=True)) for name in names}
    return results | {"one": run_steps("one")}


@pytest.mark.process
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sharded_run_equals_the_run_on_one_device(runs, name):
    one, other = runs["one"], runs[name]
    for count in ("notes", "tokens"):
        np.testing.assert_array_equal(other[count], one[count])
    for measure in ("loss", "pitch", "grad_norm", "param_norm", "score"):
        np.testing.assert_allclose(other[measure], one[measure], rtol=2e-6, err_msg=measure)
    np.testing.assert_allclose(other["gradients"], one["gradients"], rtol=1e-4, atol=1e-7)
    # Adam divides by the root of the second moment: where that is tiny, it amplifies rounding errors.
    differences = np.abs(other["params"] - one["params"])
    assert differences.mean() < 1e-7 and differences.max() < 3e-4


@pytest.mark.process
def test_initial_parameters_do_not_depend_on_the_devices(runs):
    np.testing.assert_allclose(runs["initial"]["params"], initial_parameters("one")["params"], rtol=1e-6, atol=1e-7)


@pytest.mark.process
def test_a_checkpoint_can_be_resumed_under_another_partitioner(runs):
    np.testing.assert_allclose(runs["resumed"]["loss"], runs["one"]["loss"][RESUMED_AT:], rtol=2e-6)


@pytest.mark.process
def test_fsdp_shards_the_state(runs):
    assert runs["fsdp"]["state_bytes"] < 0.6 * runs["one"]["state_bytes"]
    assert runs["all_axes"]["state_bytes"] < 0.75 * runs["one"]["state_bytes"]
    assert runs["pmap"]["state_bytes"] == runs["one"]["state_bytes"]
    assert "all-gather" in runs["all_axes"]["collectives"].item()


@pytest.mark.process
def test_the_data_and_tensor_axes_only_need_sums(runs):
    """No activation moves between devices for attention, even in scopes with own-attribute heads."""
    for name in ("data_tensor", "pmap"):
        assert set(runs[name]["collectives"].item()) == {"all-reduce"}, name


@pytest.mark.process
def test_remarks_name_what_an_axis_does_not_divide(runs):
    """One key-value head on two devices."""
    remarks = " ".join(runs["data_tensor"]["remarks"])
    assert "mesh of data 4 x fsdp 1 x tensor 2" in remarks and "key_value_0 (1 by 2)" in remarks and "query" not in remarks


@pytest.mark.parametrize("config", [*(f"{system}-base" for system in baselines.SYSTEMS), "base"])
def test_every_parameter_of_every_model_has_a_rule(config):
    made = (sage if config == "base" else baselines).get_config(config)
    made.model.update(num_layers=1, embed_dim=40, mlp_dim=16)
    run = RunConfig.from_dict(made.to_dict())
    state = jax.eval_shape(lambda: init_state(0, model=build_model(run.model), tx=make_optimizer(run.optimizer, 1)))
    mesh = make_mesh(MeshConfig())
    for path, leaf in paths(state):
        partition_spec(path, leaf.shape, mesh)
    with pytest.raises(LookupError, match="block_0/mystery"):
        partition_spec("params/block_0/mystery", (2, 3), mesh)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (dict(mesh=dict(data=3, fsdp=2)), r"config.mesh is data 3 x fsdp 2 x tensor 1, but there are 1 devices"),
        (dict(mesh=dict(tensor=2)), r"config.mesh is data the rest x fsdp 1 x tensor 2"),
        (dict(mesh=dict(fsdp=0)), r"config.mesh.fsdp is 0"),
        (dict(partitioner="pmap", mesh=dict(data=1)), r"config.mesh is for config.partitioner = mesh"),
        (dict(partitioner="tmap"), r"config.partitioner is 'tmap'"),
    ],
)
def test_an_impossible_mesh_is_an_error_before_anything_is_computed(sections, message):
    with pytest.raises(UserError, match=message):
        run = RunConfig.from_dict(tiny_config(**sections).to_dict())
        make_train_functions(run, run.tokenizer)


def test_an_indivisible_batch_size_is_an_error():
    run = RunConfig.from_dict(tiny_config(train=dict(batch_size=12, grad_accum_steps=2)).to_dict())
    message = "batch_size is 12, but its rows go to 4 devices in each of 2 micro-batches; give a multiple of 8"
    with pytest.raises(UserError, match=message):
        check_batch_size(run, 4)
