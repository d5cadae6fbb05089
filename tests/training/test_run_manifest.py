"""run.json records every start of a run and the changes between them."""

import json

import jax
import pytest

from sage_jax.errors import UserError
from sage_jax.training import run_manifest
from sage_jax.training.preemption import this_command
from sage_jax.training.run_manifest import read_manifest, record_start


@pytest.fixture
def software(monkeypatch):
    """software(commit, **versions): sets the software of the next start."""

    def software(commit, **versions):
        monkeypatch.setattr(run_manifest, "commit", lambda: commit)
        monkeypatch.setattr(run_manifest, "describe", lambda *packages: dict.fromkeys(packages, "1.0") | versions)

    return software


def config(**train):
    return {"train": {"steps": 4, "seed": 0} | train, "data": {"transpose": (-5, 6)}, "partitioner": "mesh"}


def test_a_resume_with_other_software_records_both(tmp_path, software):
    software("aaaaaaa", jax="0.10.2", optax="0.2.8")
    record_start(tmp_path, config(), step=0)
    software("bbbbbbb+", jax="0.11.2", optax="0.2.8")
    record_start(tmp_path, config(steps=9), step=4)
    found = read_manifest(tmp_path)
    assert [(start["step"], start["commit"], start["versions"]["jax"]) for start in found["starts"]] == [
        (0, "aaaaaaa", "0.10.2"),
        (4, "bbbbbbb+", "0.11.2"),
    ]
    assert found["config"] == json.loads(json.dumps(config(steps=9)))
    assert [start["changed"] for start in found["starts"]] == [{}, {"train.steps": [4, 9]}]


def test_all_starts_are_kept_when_a_run_goes_back(tmp_path, software):
    software("aaaaaaa")
    for step in (0, 8, 6, 6):
        record_start(tmp_path, config(), step)
    assert [start["step"] for start in read_manifest(tmp_path)["starts"]] == [0, 8, 6, 6]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_start_records_command_time_versions_and_devices_but_no_host_name(tmp_path):
    record_start(tmp_path, config(), step=0)
    start = json.loads((tmp_path / "run.json").read_text())["starts"][0]
    assert start.keys() == {"step", "time", "command", "commit", "versions", "devices", "changed"}
    assert start["commit"] and start["command"] == this_command() and start["time"].endswith("+00:00")
    packages = {"python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "ml_collections", "numpy", "pretty_midi"}
    assert packages <= start["versions"].keys()
    assert start["devices"] == {"count": jax.device_count(), "kind": jax.devices()[0].device_kind, "processes": 1}


@pytest.mark.parametrize("text", ['{"config": {', "[]", '{"config": {}}', '{"config": 3, "starts": []}'])
def test_a_damaged_file_is_named_and_kept(tmp_path, text):
    assert read_manifest(tmp_path) is None
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json can't be read .* move it away"):
        record_start(tmp_path, config(), step=0)
    assert (tmp_path / "run.json").read_text() == text
