"""TensorBoard event files have the values of metrics.jsonl, each step once, and piano rolls."""

import contextlib
import io
import pathlib
import struct
import sys

import jax
import numpy as np
import pytest
from matplotlib.image import imread
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.registry import build_model
from sage_jax.training import loop, sample_logging
from sage_jax.training.loop import train
from sage_jax.training.metrics import read_metrics
from sage_jax.training.sample_logging import SampleLogger
from sage_jax.training.tensorboard import EventFile
from tests.training.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("quick_init")
SECTIONS = dict(data=dict(context_events=16), model=dict(kv_sharing="mqa"), representation=dict(name="remi"))  # fast to compile
CONFIG = RunConfig.from_dict(tiny_config(**SECTIONS).to_dict())


@pytest.fixture(scope="module")
def compiled_for_all(compiled_once):
    """Makes runs of any length share their compiled functions; the learning rate does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        made = loop.make_train_functions
        patch.setattr(loop, "make_train_functions", lambda run, representation: made(CONFIG, representation))
        yield


def train_to(steps: int, workdir: pathlib.Path, tensorboard: bool = True) -> dict:
    return train(tiny_config(train=dict(steps=steps, tensorboard=tensorboard), **SECTIONS), workdir)


def records(path: pathlib.Path):
    """The events of a file, with checksums verified."""
    data = io.BytesIO(path.read_bytes())
    while header := data.read(8):
        assert struct.unpack("<I", data.read(4))[0] == masked_crc32c(header)
        event = data.read(struct.unpack("<Q", header)[0])
        assert struct.unpack("<I", data.read(4))[0] == masked_crc32c(event)
        yield Event.FromString(event)


def shown(workdir: pathlib.Path) -> dict:
    """tag -> {step: value}, as TensorBoard shows it: files sorted by name, without the steps that a session start purges."""
    curves = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        first, *events = records(path)
        assert first.file_version == "brain.Event:2"
        for event in events:
            if event.session_log.status == SessionLog.START:
                curves = {tag: {at: value for at, value in curve.items() if at < event.step} for tag, curve in curves.items()}
            for value in event.summary.value:
                curve = curves.setdefault(value.tag, {})
                assert event.step not in curve, "a step is logged twice"
                curve[event.step] = value.image if value.HasField("image") else value.simple_value
    return curves


def assert_same_curves(workdir: pathlib.Path, curves: dict) -> None:
    logged = {}
    for line in (line for kind in ("train", "valid") for line in read_metrics(workdir / "metrics.jsonl", kind)):
        for name in line.keys() - {"kind", "step"}:
            logged.setdefault(f"{line['kind']}/{name}", {})[line["step"]] = float(np.float32(line[name]))
    assert "train/loss" in logged and "valid/loss" in logged
    assert {tag: curve for tag, curve in curves.items() if not tag.startswith("continuation")} == logged


def test_a_run_and_its_resume_are_one_curve_with_piano_rolls(workdir, monkeypatch, compiled_for_all):
    monkeypatch.setattr(sample_logging, "NUM_PROMPTS", 1)
    train_to(2, workdir)
    train_to(2, workdir)  # finished already: nothing is logged
    train_to(4, workdir)
    assert len(list((workdir / "tensorboard").iterdir())) == 2
    curves = shown(workdir)
    assert_same_curves(workdir, curves)
    assert list(curves["train/loss"]) == [1, 2, 3, 4]
    images = curves["continuation/1"]
    assert list(images) == [2, 4]
    for image in images.values():
        assert imread(io.BytesIO(image.encoded_image_string)).shape == (image.height, image.width, 4) == (700, 1600, 4)
    assert images[2].encoded_image_string != images[4].encoded_image_string


def test_steps_taken_again_after_a_kill_are_logged_once(tmp_path):
    for first, losses in ((1, [9, 8, 7, 6]), (3, [5, 4]), (4, [3])):
        with contextlib.closing(EventFile(tmp_path, first - 1)) as events:
            for step, loss in enumerate(losses, first):
                events.scalars("train", step, {"loss": loss})
                assert shown(tmp_path)["train/loss"][step] == loss  # flushed
    assert shown(tmp_path) == {"train/loss": {1: 9, 2: 8, 3: 5, 4: 3}}
    names = [path.name for path in sorted((tmp_path / "tensorboard").iterdir())]
    assert names == [f"events.out.tfevents.00000{number}" for number in (1, 2, 3)]


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UserError, match="cannot write .*tensorboard: .*; choose another --workdir"):
        EventFile(tmp_path, 0)


def test_without_tensorboardx_the_run_does_not_start(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"config.train.tensorboard is True, .*pip install -e '.\[tensorboard\]'"):
        train_to(1, workdir)
    assert [path.name for path in workdir.iterdir()] == ["data"]


def test_it_can_be_switched_on_and_off_and_prompts_may_be_missing(workdir, monkeypatch, compiled_for_all, capsys):
    monkeypatch.setattr(sample_logging, "PROMPT_BARS", 100)
    for steps, tensorboard in ((1, False), (2, True), (3, False)):
        train_to(steps, workdir, tensorboard)
    assert "no piano rolls for TensorBoard: no piece of the validation split has 100 bars" in capsys.readouterr().out
    curves = shown(workdir)
    assert list(curves["train/loss"]) == [2] and {tag.split("/")[0] for tag in curves} == {"train", "valid"}


def test_samples_change_with_the_params_without_new_compilations(workdir, monkeypatch):
    monkeypatch.setattr(sample_logging, "NUM_PROMPTS", 1)
    samples = SampleLogger(CONFIG, CONFIG.representation.make(CONFIG.tokenizer), workdir / "data")
    params = jax.jit(build_model(CONFIG.model).init)(jax.random.key(0), np.zeros((1, 2, 1), np.int32))["params"]
    images = samples.draw(params, 3)
    assert len(images) == 1 and samples.remarks == ()
    compiled = samples._engine.compilations
    assert samples.draw(params, 3) == images
    assert samples.draw(jax.tree.map(lambda leaf: -leaf, params), 3) != images
    assert samples._engine.compilations == compiled > 0
