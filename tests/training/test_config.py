"""Configs become dataclasses, and what is wrong with them is said in one line."""

import functools
import json
import subprocess
import sys

import jax
import pytest

from configs import baselines
from configs.sage import ARGUMENTS, get_config
from sage_jax.errors import UserError
from sage_jax.models.forms import make_model
from sage_jax.sample import TakesConfig
from sage_jax.training.config import RunConfig, read_section
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.state import init_state
from tests.training.tiny import tiny_config


def run_of(config) -> RunConfig:
    return RunConfig.from_dict(config.to_dict())


@pytest.mark.parametrize(
    ("get_config", "arg"),
    [(get_config, arg) for arg in (None, *ARGUMENTS)] + [(baselines.get_config, arg) for arg in (None, *baselines.ARGUMENTS)],
)
def test_every_config_builds(get_config, arg):
    run = run_of(get_config(arg))
    tx = make_optimizer(run.optimizer, run.train.steps)
    state = jax.eval_shape(functools.partial(init_state, model=make_model(run.model), tx=tx), 0)
    assert state.params["embedding_0"].shape == (run.representation.vocab_sizes(run.tokenizer)[0], run.model.width)


def test_the_base_model_is_the_one_that_is_measured():
    model = run_of(get_config("base")).model
    assert (model.layers, model.width, model.heads, model.head_width) == (12, 512, 10, 64)


def test_an_unknown_argument_is_told_the_known_ones():
    with pytest.raises(UserError, match="'huge'; choose one of debug, demo, base"):
        get_config("huge")
    for arg in ("tree", "nested-huge"):
        with pytest.raises(UserError, match=f"'{arg}'; choose one of mha, mqa, nested"):
            baselines.get_config(arg)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("tokenizer", "num_velocities", 0),
        ("data", "num_events", 1),
        ("data", "transpose", (3, 5)),
        ("data", "transpose", (0,)),
        ("data", "transpose", (-5, "six")),
        ("data", "transpose", (-5, True)),
        ("data", "transpose", (-5, None)),
        ("data", "transpose", (-5, 6.0)),
        ("model", "heads", 7),
        ("model", "dtype", "float16"),
        ("optimizer", "learning_rate", -1.0),
        ("optimizer", "learning_rate", float("nan")),
        ("optimizer", "warmup_steps", -1),
        ("optimizer", "clip_norm", 0.0),
        ("optimizer", "b1", 1.5),
        ("train", "steps", 0),
        ("train", "batch_size", 5),
        ("train", "accumulate", 0),
        ("train", "keep", 0),
        ("train", "max_minutes", -1.0),
    ],
)
def test_an_impossible_value_is_named(section, field, value):
    config = tiny_config(train=dict(accumulate=2))
    config[section][field] = value
    with pytest.raises(UserError, match=f"^config.{section}.{field} is [^\n]*$"):
        run_of(config)


def test_elements_of_takes_are_checked_too():
    with pytest.raises(UserError, match=r"^config.takes.meter is \(4, 'x'\); give whole numbers"):
        read_section(TakesConfig, "takes", tiny_config(takes=dict(meter=(4, "x"))).to_dict())


def test_an_unknown_field_is_named():
    config = tiny_config().to_dict()
    config["model"]["depth"] = 3
    with pytest.raises(UserError, match="^config.model.depth is not a field; known are .*layers"):
        RunConfig.from_dict(config)
    del config["model"]
    with pytest.raises(UserError, match="no section model"):
        RunConfig.from_dict(config)


def test_a_run_survives_json():
    run = run_of(tiny_config())
    saved = json.loads(json.dumps(run.to_dict()))
    assert RunConfig.from_dict(saved) == run
    assert run.differences(saved) == {}


def test_only_what_decides_the_result_makes_another_run():
    saved = run_of(tiny_config()).to_dict()
    assert not run_of(tiny_config(train=dict(steps=9, eval_every=3, keep=1))).differences(saved)
    other = run_of(tiny_config(train=dict(seed=1), model=dict(width=32)))
    assert other.differences(saved) == {"model.width": (16, 32), "train.seed": (0, 1)}


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--config=configs/sage.py:huge", "choose one of debug, demo, base"),
        ("--config.train.stepz=3", "stepz"),
        ("--config.train.steps=0", "config.train.steps is 0"),
    ],
)
def test_a_mistake_on_the_command_line_costs_one_line(flag, line, tmp_path):
    config = [] if flag.startswith("--config=") else ["--config=configs/sage.py:debug"]
    command = [sys.executable, "-m", "launch.train", *config, flag, f"--workdir={tmp_path}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert line in ended.stderr and len(ended.stderr.strip().splitlines()) == 1, ended.stderr
