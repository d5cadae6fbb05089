"""Checkpoints: saving and restoring, damaged checkpoints, and errors in one line."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.transformer import Transformer
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.state import TrainState, init_state
from tests.training.tiny import tiny_config

# When a read fails, other reads of orbax that are in progress fail after its event loop is closed.
CLOSED_LOOP = r"ignore:[\s\S]*Event loop is closed:pytest.PytestUnraisableExceptionWarning"
pytestmark = pytest.mark.filterwarnings(CLOSED_LOOP)
ROOT = pathlib.Path(__file__).parents[2]
POSITION = {"next_index": 12, "parents": [3, {"exhausted": 0}]}


def run_of(**sections) -> RunConfig:
    return RunConfig.from_dict(tiny_config(**sections).to_dict())


@pytest.fixture(scope="module")
def state() -> TrainState:
    """A state of zeros with the shapes of the tiny run; nothing is compiled."""
    run = run_of()
    tx = make_optimizer(run.optimizer, run.train.steps)
    shapes = jax.eval_shape(functools.partial(init_state, model=Transformer(run.model), tx=tx), 0)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def at(state: TrainState, step: int) -> TrainState:
    return state.replace(step=jnp.int32(step), params=jax.tree.map(lambda leaf: leaf + step, state.params))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state):
    """A run with checkpoints 1 to 4, of which the best (2) and the newest two are kept. For tests that only read."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, run_of()) as checkpoints:
        for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None)):
            checkpoints.save(at(state, step), POSITION, loss)
    return folder


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of `saved`."""
    return shutil.copytree(saved, tmp_path / "run")


def test_state_and_position_are_restored(saved, state):
    restored, position = restore(saved, state)
    assert position == POSITION
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at(state, 4))


def test_the_newest_and_the_best_are_kept(saved):
    assert sorted(path.name for path in (saved / "checkpoints").iterdir()) == ["2", "3", "4"]


def test_a_saved_step_is_not_overwritten(saved, state):
    with Checkpoints(saved, run_of()) as checkpoints:
        checkpoints.save(at(state, 4), {"next_index": 99})
        assert checkpoints.restore(state)[1] == POSITION


def test_load_for_sampling_returns_params_and_config(saved, state):
    for best, expected in ((False, 4), (True, 2)):
        params, config, step, _ = load_for_sampling(saved, best=best)
        assert (step, config) == (expected, run_of())
        jax.tree.map(np.testing.assert_array_equal, params, at(state, expected).params)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))


def restore(workdir, state, **sections):
    with Checkpoints(workdir, run_of(**sections)) as checkpoints:
        return checkpoints.restore(state)


def test_another_run_is_refused_and_the_difference_named(saved, state):
    with pytest.raises(
        UserError, match="another run: config.model.embed_dim is 16 there and 32 here; choose another --workdir"
    ):
        restore(saved, state, model=dict(embed_dim=32))
    assert int(restore(saved, state, train=dict(steps=99, eval_every=5))[0].step) == 4


def test_another_vocabulary_is_refused(saved, state, monkeypatch):
    with pytest.raises(UserError, match="config.tokenizer.num_velocities is 32 there and 16 here"):
        restore(saved, state, tokenizer=dict(num_velocities=16))
    monkeypatch.setattr(NoteEvents, "fingerprint", "changed")
    for load in (load_for_sampling, functools.partial(restore, state=state)):
        with pytest.raises(UserError, match="trained with another vocabulary"):
            load(saved)


def test_without_checkpoints_the_error_names_the_training_command(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in .*; train first"):
        load_for_sampling(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_an_unwritable_workdir_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file.*; choose another --workdir"):
        Checkpoints(tmp_path / "file", run_of())


def truncate(folder):
    (folder / "state" / "manifest.ocdbt").write_text("")


def largest_of(folder):
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def tear(folder):
    """Cuts off the second half of the largest file of the state."""
    os.truncate(largest_of(folder), largest_of(folder).stat().st_size // 2)


def flip_bits(folder, every=997, first=0):
    content = bytearray(largest_of(folder).read_bytes())
    for index in range(first, len(content), every):
        content[index] ^= 1 << index % 8
    largest_of(folder).write_bytes(content)


def change_position(folder):
    file = next(path for path in (folder / "place").iterdir() if "12" in path.read_text())
    file.write_text(file.read_text().replace("12", "13"))


def remove(name):
    return lambda folder: shutil.rmtree(folder / name)


DAMAGES = {
    "truncated": truncate, "torn": tear, "flipped": flip_bits, "position": change_position,
    **{f"no {name}": remove(name) for name in ("state", "config", "vocabulary", "checksums")},
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_moved_and_the_previous_one_used(workdir, state, damage, capfd):
    folder = workdir / "checkpoints" / "4"
    DAMAGES[damage](folder)
    assert load_for_sampling(workdir)[2] == 3
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cannot")]
    assert str(folder) in line and line.endswith("going back to step 3")
    restored, _ = restore(workdir, state)
    assert int(restored.step) == 3
    assert "going back to step 3" in capfd.readouterr().err
    assert not folder.exists() and len(list((workdir / "damaged").iterdir())) == 1
    with Checkpoints(workdir, run_of()) as checkpoints:
        checkpoints.save(at(state, 4), POSITION)  # the run reaches that step again
    assert load_for_sampling(workdir)[2] == 4 and "cannot" not in capfd.readouterr().err


def test_one_flipped_bit_is_detected_or_harmless(saved, state, tmp_path):
    """At four places in the largest file of the state; some may be headers or padding that orbax does not read."""
    size = largest_of(saved / "checkpoints" / "4").stat().st_size
    detected = 0
    for first in range(size // 16, size, size // 4):
        copy = shutil.copytree(saved, tmp_path / str(first))
        flip_bits(copy / "checkpoints" / "4", every=size, first=first)
        restored, _ = restore(copy, state)
        step = int(restored.step)
        jax.tree.map(np.testing.assert_array_equal, restored, at(state, step))
        detected += step == 3
    assert detected >= 2


def test_if_every_checkpoint_is_damaged_none_is_moved(workdir, state):
    for folder in (workdir / "checkpoints").iterdir():
        truncate(folder)
    before = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    for load in (load_for_sampling, functools.partial(restore, state=state)):
        with pytest.raises(UserError, match="checkpoints/4 .*; no other checkpoint is intact: train in another --workdir"):
            load(workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == before


def test_a_partial_checkpoint_is_ignored(workdir):
    """A kill during a save leaves a folder with a temporary name."""
    (workdir / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()
    assert load_for_sampling(workdir)[2] == 4


@pytest.mark.process
def test_a_program_reports_damage_in_one_line(workdir):
    """Without the messages of orbax about other reads that fail."""
    truncate(workdir / "checkpoints" / "4")
    code = f"""
from launch._main import run
from sage_jax.training.checkpoint import load_for_sampling
run(lambda: print(load_for_sampling({str(workdir)!r})[2]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout == "3\n"
    assert ended.stderr.count("\n") == 1 and ended.stderr.endswith("going back to step 3\n"), ended.stderr


@pytest.mark.process
def test_the_module_leaves_logging_and_hooks_alone(saved):
    """They belong to the program, which may use orbax itself."""
    code = f"""
import logging, sys
import orbax.checkpoint

def state():
    return [list(logging.getLogger(name).filters) for name in ("", "absl", "asyncio")], sys.unraisablehook

before = state()
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
assert state() == before
config = load_for_sampling({str(saved)!r})[1]
with Checkpoints({str(saved)!r}, config):
    assert state() == before
assert state() == before
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
