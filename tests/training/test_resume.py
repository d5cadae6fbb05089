"""Real runs on real shards: a run that is stopped and resumed is bitwise equal to an uninterrupted one."""

import os
import signal

import jax
import numpy as np
import pytest

from sage_jax.config import RunConfig
from sage_jax.errors import Preempted, UserError
from sage_jax.tokenizers.note_events import ATTRIBUTES
from sage_jax.training import loop
from sage_jax.training.checkpoint import Checkpoints, load_for_sampling
from sage_jax.training.loop import train
from sage_jax.training.metrics import read_metrics
from tests.training.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("quick_init")

# Everything that draws random numbers, and an average.
CHANCE = tiny_config(
    model=dict(dropout_embedding=0.1, dropout_attention=0.1, dropout_residual=0.1),
    augment=dict(drop_instruments=0.3, exchange_programs=0.3, cut_start=0.5, velocity_offset=(-9, 9), keep_ranges=True),
)
CHANCE.train.ema_decay = 0.5


class RecordingDataset:
    """A dataset that appends each batch to `taken`, and sends SIGTERM with batch number `stop_at`."""

    def __init__(self, dataset, taken, stop_at):
        self.dataset, self.taken, self.stop_at = dataset, taken, stop_at

    def __iter__(self):
        self.iterator = iter(self.dataset)
        self.get_state, self.set_state = self.iterator.get_state, self.iterator.set_state
        return self

    def __next__(self):
        batch = next(self.iterator)
        self.taken.append(batch["events"])
        if len(self.taken) == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch


@pytest.fixture
def run(monkeypatch, workdir, compiled_once):
    """run(folder, stop_at=) -> the training batches."""
    datasets = loop.datasets

    def run(folder, stop_at=None, **changes):
        taken = []

        def recording(config, *_):
            train_data, valid_data = datasets(config, workdir / "data", config.tokenizer)
            return RecordingDataset(train_data, taken, stop_at), valid_data

        monkeypatch.setattr(loop, "datasets", recording)
        config = CHANCE.copy_and_resolve_references()
        config.train.update(changes)
        train(config, folder)
        return taken

    return run


def restored(folder):
    config = RunConfig.from_dict(CHANCE.to_dict())
    functions = loop.make_train_functions(config, config.tokenizer)
    with Checkpoints(folder, config) as checkpoints:
        return checkpoints.restore(functions.init(1))


def test_four_steps_equal_two_plus_a_restart_plus_two(run, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    batches = run(whole)
    with pytest.raises(Preempted):
        run(parts, stop_at=2)
    assert int(restored(parts)[0].step) == 2
    after = run(parts)
    assert len(batches) == 4 and len(after) == 2
    np.testing.assert_array_equal(np.stack(batches)[2:], np.stack(after))

    (state, position), (resumed, resumed_position) = restored(whole), restored(parts)
    assert position == resumed_position
    assert int(resumed.step) == 4
    for (path, one), two in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(resumed), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), jax.tree_util.keystr(path)
    for kind in ("train", "valid"):
        lines = [read_metrics(folder / "metrics.jsonl", kind) for folder in (whole, parts)]
        assert [(line["step"], line["loss"]) for line in lines[0]] == [(line["step"], line["loss"]) for line in lines[1]]


def test_the_loaded_params_have_the_logged_validation_loss(run, workdir, tmp_path):
    run(tmp_path / "trained")
    params, config, step, _ = load_for_sampling(tmp_path / "trained")
    last = read_metrics(tmp_path / "trained" / "metrics.jsonl", "valid")[-1]
    assert step == last["step"] == 4
    functions = loop.make_train_functions(config, config.tokenizer)
    _, valid_data = loop.datasets(config, workdir / "data", config.tokenizer)
    losses = loop.evaluate(functions.eval_step.compile(), params, map(functions.shard_batch, valid_data), ATTRIBUTES)
    assert losses["loss"] == last["loss"]


def test_a_new_run_begins_with_the_weights_of_another_and_with_a_fresh_optimizer(run, tmp_path):
    run(tmp_path / "first")
    run(tmp_path / "second", init_from=str(tmp_path / "first"))
    first, second = (read_metrics(tmp_path / name / "metrics.jsonl", "train") for name in ("first", "second"))
    assert [line["step"] for line in second] == [1, 2, 3, 4]
    assert second[0]["loss"] < first[-1]["loss"] < first[0]["loss"]
    assert second[0]["learning_rate"] == first[0]["learning_rate"]


def test_without_shards_the_error_names_the_preprocessing_command(tmp_path):
    with pytest.raises(UserError, match="launch.preprocess"):
        train(CHANCE, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
