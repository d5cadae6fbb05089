"""Tests for kernel_layout.py. A CPU can hold arrays in any layout, and stands for a GPU."""

import jax
import numpy as np
import pytest

from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.models import kernel_layout
from sage_jax.models.kernel_layout import on_device
from tests.decoding.small import CAPACITY, CHUNK, CONTEXT, FLAT, NESTED, PROMPTS, TOKENIZER, WILD, engine_of, run
from tests.models.small import join_values, parameters, tiny_config

REQUEST = Request(PROMPTS[1], sampling=WILD, max_events=40, seed=3)


def orders(params) -> dict[str, tuple[int, ...]]:
    """The dimensions of each matrix from the slowest to the fastest in memory."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf.format.layout.major_to_minor for path, leaf in leaves if leaf.ndim == 2}


@pytest.mark.parametrize("fields", [FLAT, NESTED], ids=join_values)
def test_an_engine_draws_the_same_whatever_the_layout(fields, monkeypatch):
    """No program moves a kernel back: each takes it as it lies."""
    monkeypatch.setattr(kernel_layout, "TRANSPOSED", ("cpu",))
    config = tiny_config(vocab_sizes=TOKENIZER.vocab_sizes, **fields)
    engine = Engine(config, parameters(config), TOKENIZER, context=CONTEXT, chunk=CHUNK, first_capacity=CAPACITY)
    engine._programs = {}  # not those of engines with the usual layout
    found = orders(engine.params)
    assert {order for name, order in found.items() if "embedding" not in name} == {(1, 0)}
    assert {order for name, order in found.items() if "embedding" in name} == {(0, 1)}
    assert np.array_equal(run(engine, REQUEST)[0].events, run(engine_of(**fields), REQUEST)[0].events)
    program = engine._programs["decode", 1, CAPACITY]
    taken = [each.layout.major_to_minor for each in jax.tree.leaves(program.input_formats[0][0])]
    assert taken == [leaf.format.layout.major_to_minor for leaf in engine._step_leaves] and (1, 0) in taken


def test_other_platforms_keep_the_usual_layout_and_shapes_stay_shapes(monkeypatch):
    (device,) = jax.devices()[:1]
    params = {"kernel": jax.ShapeDtypeStruct((4, 6), np.float32), "scale": jax.ShapeDtypeStruct((4,), np.float32)}
    assert on_device(params, device) is params
    monkeypatch.setattr(kernel_layout, "TRANSPOSED", ("cpu",))
    placed = on_device(params, device)
    assert placed["kernel"].format.layout.major_to_minor == (1, 0) and placed["kernel"].shape == (4, 6)
    assert placed["scale"] == params["scale"]
