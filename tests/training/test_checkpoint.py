"""What is saved comes back, for the run that saved it and for the sampler, and what can't is told in one line."""

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

from sage_jax.errors import UserError
from sage_jax.models.transformer import Transformer
from sage_jax.music.events import NoteEvents
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
from sage_jax.training.config import RunConfig
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.state import TrainState, init_state
from tests.training.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]
PLACE = {"next_index": 12, "parents": [3, {"exhausted": 0}]}


def run_of(**sections) -> RunConfig:
    return RunConfig.from_dict(tiny_config(**sections).to_dict())


@pytest.fixture(scope="module")
def state() -> TrainState:
    """The tiny run's state without compiling it: zeros."""
    run = run_of()
    tx = make_optimizer(run.optimizer, run.train.steps)
    shapes = jax.eval_shape(functools.partial(init_state, model=Transformer(run.model), tx=tx), 0)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def at(state: TrainState, step: int) -> TrainState:
    return state.replace(step=jnp.int32(step), params=jax.tree.map(lambda leaf: leaf + step, state.params))


@pytest.fixture
def workdir(tmp_path, state):
    """A run with the checkpoints of steps 1 to 4, of which step 2 was the best and 2 are kept."""
    with Checkpoints(tmp_path, run_of()) as checkpoints:
        for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None)):
            checkpoints.save(at(state, step), PLACE, loss)
    return tmp_path


def test_state_and_place_come_back(workdir, state):
    restored, place = restore(workdir, state)
    assert place == PLACE
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at(state, 4))


def test_the_newest_and_the_best_are_kept(workdir):
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "3", "4"]


def test_a_step_that_is_saved_already_stays(workdir, state):
    with Checkpoints(workdir, run_of()) as checkpoints:
        checkpoints.save(at(state, 4), {"next_index": 99})
        assert checkpoints.restore(state)[1] == PLACE


def test_the_sampler_gets_params_and_config(workdir, state):
    for best, expected in ((False, 4), (True, 2)):
        params, config, step, _ = load_for_sampling(workdir, best=best)
        assert (step, config) == (expected, run_of())
        jax.tree.map(np.testing.assert_array_equal, params, at(state, expected).params)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))


def restore(workdir, state, **sections):
    with Checkpoints(workdir, run_of(**sections)) as checkpoints:
        return checkpoints.restore(state)


def test_another_run_is_refused_and_its_difference_named(workdir, state):
    with pytest.raises(UserError, match="another run: config.model.width is 16 there and 32 here; choose another --workdir"):
        restore(workdir, state, model=dict(width=32))
    assert int(restore(workdir, state, train=dict(steps=99, eval_every=5))[0].step) == 4


def test_another_vocabulary_is_refused(workdir, state, monkeypatch):
    with pytest.raises(UserError, match="config.tokenizer.num_velocities is 32 there and 16 here"):
        restore(workdir, state, tokenizer=dict(num_velocities=16))
    monkeypatch.setattr(NoteEvents, "fingerprint", "changed")
    for load in (load_for_sampling, functools.partial(restore, state=state)):
        with pytest.raises(UserError, match="trained with another vocabulary"):
            load(workdir)


def test_a_workdir_without_checkpoints_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in .*; train first"):
        load_for_sampling(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file.*; choose another --workdir"):
        Checkpoints(tmp_path / "file", run_of())


def truncate(folder):
    (folder / "state" / "manifest.ocdbt").write_text("")


def largest_of(folder):
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def tear(folder):
    """The second half of the largest file of the state is lost."""
    os.truncate(largest_of(folder), largest_of(folder).stat().st_size // 2)


def flip_bits(folder, every=997, first=0):
    content = bytearray(largest_of(folder).read_bytes())
    for place in range(first, len(content), every):
        content[place] ^= 1 << place % 8
    largest_of(folder).write_bytes(content)


def change_the_place(folder):
    file = next(path for path in (folder / "place").iterdir() if "12" in path.read_text())
    file.write_text(file.read_text().replace("12", "13"))


def lose(name):
    return lambda folder: shutil.rmtree(folder / name)


DAMAGES = {
    "truncated": truncate, "torn": tear, "flipped": flip_bits, "place": change_the_place,
    **{f"no {name}": lose(name) for name in ("state", "config", "vocabulary", "digests")},
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_from_a_damaged_checkpoint_a_run_goes_back_to_the_one_before(workdir, state, damage, capfd):
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
        checkpoints.save(at(state, 4), PLACE)  # the run comes to that step again
    assert load_for_sampling(workdir)[2] == 4 and "cannot" not in capfd.readouterr().err


def test_one_flipped_bit_is_found_or_changes_nothing(workdir, state, tmp_path_factory):
    """Of the largest file of the state, in four places: among them may be headers and padding that nobody reads."""
    size = largest_of(workdir / "checkpoints" / "4").stat().st_size
    found = 0
    for first in range(size // 16, size, size // 4):
        copy = tmp_path_factory.mktemp("copy")
        shutil.copytree(workdir, copy, dirs_exist_ok=True)
        flip_bits(copy / "checkpoints" / "4", every=size, first=first)
        restored, _ = restore(copy, state)
        step = int(restored.step)
        jax.tree.map(np.testing.assert_array_equal, restored, at(state, step))
        found += step == 3
    assert found >= 2


def test_where_every_checkpoint_is_damaged_nothing_is_moved(workdir, state):
    for folder in (workdir / "checkpoints").iterdir():
        truncate(folder)
    before = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    for load in (load_for_sampling, functools.partial(restore, state=state)):
        with pytest.raises(UserError, match="checkpoints/4 .*; there is no other one that is whole: train in another --workdir"):
            load(workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == before


def test_a_half_written_checkpoint_does_not_count(workdir):
    """A kill while saving leaves a folder under another name."""
    (workdir / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()
    assert load_for_sampling(workdir)[2] == 4


def test_a_program_reports_damage_in_lines_of_its_own_alone(workdir):
    """Not those of reads that were under way when another one failed."""
    truncate(workdir / "checkpoints" / "4")
    code = f"""
from launch._main import run
from sage_jax.training.checkpoint import load_for_sampling
run(lambda: print(load_for_sampling({str(workdir)!r})[2]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout == "3\n"
    assert ended.stderr.count("\n") == 1 and ended.stderr.endswith("going back to step 3\n"), ended.stderr


def test_logging_and_hooks_of_the_process_stay_as_they_are(workdir):
    """They belong to the program, whose own use of orbax may need them."""
    code = f"""
import logging, sys
import orbax.checkpoint

def state():
    return [list(logging.getLogger(name).filters) for name in ("", "absl", "asyncio")], sys.unraisablehook

before = state()
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
assert state() == before
config = load_for_sampling({str(workdir)!r})[1]
with Checkpoints({str(workdir)!r}, config):
    assert state() == before
assert state() == before
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
