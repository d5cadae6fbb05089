"""run.json tells of every start of a run, whatever has changed between them."""

import json

import jax
import pytest

from sage_jax.errors import UserError
from sage_jax.training import starts
from sage_jax.training.interrupt import this_command
from sage_jax.training.starts import note_start, read_run


@pytest.fixture
def software(monkeypatch):
    """software(commit, **versions): what the next start finds."""

    def software(commit, **versions):
        monkeypatch.setattr(starts, "commit", lambda: commit)
        monkeypatch.setattr(starts, "describe", lambda *packages: dict.fromkeys(packages, "1.0") | versions)

    return software


def config(**train):
    return {"train": {"steps": 4, "seed": 0} | train, "data": {"transpose": (-5, 6)}, "parallel": "mesh"}


def test_a_resume_by_other_software_shows_both(tmp_path, software):
    software("aaaaaaa", jax="0.10.2", optax="0.2.8")
    note_start(tmp_path, config(), step=0)
    software("bbbbbbb+", jax="0.11.2", optax="0.2.8")
    note_start(tmp_path, config(steps=9), step=4)
    found = read_run(tmp_path)
    assert [(start["step"], start["commit"], start["versions"]["jax"]) for start in found["starts"]] == [
        (0, "aaaaaaa", "0.10.2"),
        (4, "bbbbbbb+", "0.11.2"),
    ]
    assert found["config"] == json.loads(json.dumps(config(steps=9)))
    assert [start["changed"] for start in found["starts"]] == [{}, {"train.steps": [4, 9]}]


def test_no_start_is_lost_where_a_run_goes_back(tmp_path, software):
    software("aaaaaaa")
    for step in (0, 8, 6, 6):
        note_start(tmp_path, config(), step)
    assert [start["step"] for start in read_run(tmp_path)["starts"]] == [0, 8, 6, 6]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_start_tells_its_command_time_versions_and_devices_and_not_its_host(tmp_path):
    note_start(tmp_path, config(), step=0)
    start = json.loads((tmp_path / "run.json").read_text())["starts"][0]
    assert start.keys() == {"step", "time", "command", "commit", "versions", "devices", "changed"}
    assert start["commit"] and start["command"] == this_command() and start["time"].endswith("+00:00")
    packages = {"python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "ml_collections", "numpy", "pretty_midi"}
    assert packages <= start["versions"].keys()
    assert start["devices"] == {"count": jax.device_count(), "kind": jax.devices()[0].device_kind, "processes": 1}


@pytest.mark.parametrize("text", ['{"config": {', "[]", '{"config": {}}', '{"config": 3, "starts": []}'])
def test_a_damaged_file_is_named_and_stays(tmp_path, text):
    assert read_run(tmp_path) is None
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json can't be read .* move it away"):
        note_start(tmp_path, config(), step=0)
    assert (tmp_path / "run.json").read_text() == text
