"""Configs are converted to dataclasses, and their errors are one line."""

import dataclasses
import functools
import json

import jax
import pytest

from configs import baselines
from configs.sage import ARGUMENTS, get_config
from sage_jax.config import RunConfig, read_section
from sage_jax.errors import UserError
from sage_jax.models.registry import build_model
from sage_jax.takes import ContinuationConfig
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
    model = build_model(dataclasses.replace(run.model, num_layers=1))  # traced in a twelfth of the time of twelve
    state = jax.eval_shape(functools.partial(init_state, model=model, tx=tx), 0)
    assert state.params["embedding_0"].shape == (run.representation.vocab_sizes(run.tokenizer)[0], run.model.embed_dim)


def test_the_base_model_has_the_size_of_the_benchmarks():
    model = run_of(get_config("base")).model
    assert (model.num_layers, model.embed_dim, model.num_heads, model.head_dim) == (12, 512, 10, 64)


def test_an_unknown_argument_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match="'huge'; choose one of debug, demo, base"):
        get_config("huge")
    for arg in ("tree", "nested-huge"):
        with pytest.raises(UserError, match=f"'{arg}'; choose one of mha, mqa, nested"):
            baselines.get_config(arg)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("tokenizer", "num_velocities", 0),
        ("data", "context_events", 1),
        ("data", "transpose", (3, 5)),
        ("data", "transpose", (0,)),
        ("data", "transpose", (-5, "six")),
        ("data", "transpose", (-5, True)),
        ("data", "transpose", (-5, None)),
        ("data", "transpose", (-5, 6.0)),
        ("model", "num_heads", 7),
        ("model", "dtype", "float16"),
        ("optimizer", "learning_rate", -1.0),
        ("optimizer", "learning_rate", float("nan")),
        ("optimizer", "warmup_steps", -1),
        ("optimizer", "clip_norm", 0.0),
        ("optimizer", "b1", 1.5),
        ("train", "steps", 0),
        ("train", "batch_size", 5),
        ("train", "grad_accum_steps", 0),
        ("train", "max_to_keep", 0),
        ("train", "max_minutes", -1.0),
    ],
)
def test_an_invalid_value_is_named(section, field, value):
    config = tiny_config(train=dict(grad_accum_steps=2))
    config[section][field] = value
    with pytest.raises(UserError, match=f"^config.{section}.{field} is [^\n]*$"):
        run_of(config)


def test_elements_of_the_continuation_section_are_checked():
    with pytest.raises(UserError, match=r"^config.continuation.meter is \(4, 'x'\); give whole numbers"):
        read_section(ContinuationConfig, "continuation", tiny_config(continuation=dict(meter=(4, "x"))).to_dict())


def test_an_unknown_field_is_named():
    config = tiny_config().to_dict()
    config["model"]["depth"] = 3
    with pytest.raises(UserError, match="^config.model.depth is not a field; known fields are .*num_layers"):
        RunConfig.from_dict(config)
    del config["model"]
    with pytest.raises(UserError, match="no section model"):
        RunConfig.from_dict(config)


def test_a_config_survives_json():
    run = run_of(tiny_config())
    saved = json.loads(json.dumps(run.to_dict()))
    assert RunConfig.from_dict(saved) == run
    assert run.differences(saved) == {}


def test_only_fields_that_affect_the_result_must_not_change_on_resume():
    saved = run_of(tiny_config()).to_dict()
    assert not run_of(tiny_config(train=dict(steps=9, eval_every=3, max_to_keep=1))).differences(saved)
    other = run_of(tiny_config(train=dict(seed=1), model=dict(embed_dim=32)))
    assert other.differences(saved) == {"model.embed_dim": (16, 32), "train.seed": (0, 1)}
