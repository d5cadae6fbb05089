"""Several pieces in a row are each foretold as if alone, and how attention is computed does not show in what comes of it."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.models import fused
from sage_jax.models.backbone import KEPT
from sage_jax.models.config import RECOMPUTED
from sage_jax.models.forms import make_model
from sage_jax.music.events import HEAD
from sage_jax.training.config import RunConfig
from sage_jax.training.step import count_losses, pieces_of
from tests.models.small import parameters, random_events, small_config
from tests.training.tiny import tiny_config

LENGTHS = (5, 7, 4)  # of a row's pieces
ROOM = 17  # events of a row and one more
PACKED = [
    dict(scope="mixed", query_block=8),
    dict(form="nested", ahead=2),
]
names = lambda changes: "-".join(str(value) for value in changes.values())


def one_layer(**changes):
    return small_config(**{"layers": 1, "heads": 10, "head_width": 4, "query_block": 64, **changes})


def packed_and_apart(config) -> tuple[jax.Array, jax.Array]:
    """[1, ROOM, A], pieces that begin with BOS beside each other; and [3, ROOM, A], a row for each of them."""
    alone = np.zeros((len(LENGTHS), ROOM, config.num_attributes), np.int32)
    for row, length in zip(alone, LENGTHS, strict=True):
        row[:length] = np.maximum(random_events(config, 1, length, length)[0], 2)
        row[0] = 1
    together = np.concatenate([row[:length] for row, length in zip(alone, LENGTHS, strict=True)])
    return jnp.asarray(np.pad(together, ((0, ROOM - len(together)), (0, 0)))[None]), jnp.asarray(alone)


@pytest.mark.parametrize("changes", PACKED, ids=names)
def test_packed_pieces_have_the_losses_that_each_has_alone(changes):
    """All of them together, to what comes of adding in another order, and the gradient too."""
    config = one_layer(**changes)
    model = make_model(config)

    def loss(params, events, packed):
        read = events[:, :-1]
        totals = count_losses(model.apply({"params": params}, read, pieces_of(read) if packed else None), events)
        return totals.nll.sum(), totals

    losses = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=2)
    row, alone = packed_and_apart(config)
    ((_, packed), gradient), ((_, apart), expected) = losses(parameters(config), row, True), losses(parameters(config), alone, False)
    np.testing.assert_allclose(packed.nll, apart.nll, rtol=1e-5)
    assert (packed.notes, packed.tokens) == (apart.notes, apart.tokens)
    assert packed.tokens == sum(config.num_attributes * (length - HEAD) for length in LENGTHS)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4), gradient, expected)


def test_the_delay_form_is_not_packed():
    with pytest.raises(UserError, match=r"config.data.pack is True, but with model.form = delay"):
        RunConfig.from_dict(tiny_config(data=dict(pack=True), model=dict(form="delay")).to_dict())


@functools.cache
def loss_and_gradient(config, packed):
    row, _ = packed_and_apart(config)

    def loss(params):
        logits = make_model(config).apply({"params": params}, row, pieces_of(row) if packed else None)
        return sum(jax.nn.logsumexp(block, axis=-1).sum() for block in logits)

    return jax.jit(jax.value_and_grad(loss))(parameters(dataclasses.replace(config, attention="blocks", recompute="attention")))


@pytest.mark.parametrize(
    "changes",
    [
        dict(attention="fused", sharing="gqa", kv_heads=5, packed=False),
        dict(attention="fused", scope="mixed"),
        dict(attention="fused", scope="own", heads_per_attribute=2, packed=False),
        dict(attention="fused", scope="own", form="nested"),
        *(dict(recompute=what, query_block=8) for what in KEPT),
    ],
    ids=names,
)
def test_neither_fusing_nor_recomputing_shows(changes):
    packed = changes.get("packed", True)
    config = one_layer(**{field: value for field, value in changes.items() if field != "packed"})
    plain = dataclasses.replace(config, attention="blocks", recompute="attention")
    found, expected = loss_and_gradient(config, packed), loss_and_gradient(plain, packed)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3), found, expected)


def test_what_is_recomputed_is_not_kept():
    """Numbers that wait between the layers and their gradient."""

    plain = small_config(heads=10, head_width=4, sharing="mqa")
    params = parameters(plain)

    def kept(recompute):
        config = dataclasses.replace(plain, recompute=recompute)
        row = jnp.ones((2, 48, config.num_attributes), jnp.int32)
        loss = lambda params: sum(block.sum() for block in make_model(config).apply({"params": params}, row))
        _, pull_back = jax.eval_shape(lambda params: jax.vjp(loss, params), params)
        return sum(leaf.size for leaf in jax.tree.leaves(pull_back))

    nothing, attention, products, layers = (kept(what) for what in RECOMPUTED)
    assert 2 * layers < products < attention < nothing / 2


@pytest.mark.parametrize(
    ("capability", "dtype", "head_width", "has"),
    [
        ("9.0", jnp.bfloat16, 64, True),
        ("7.5", jnp.bfloat16, 64, False),
        ("gfx942", jnp.bfloat16, 64, False),
        ("9.0", jnp.float32, 64, False),
        ("9.0", jnp.bfloat16, 12, False),
    ],
)
def test_a_kernel_is_asked_for_only_where_there_is_one(monkeypatch, capability, dtype, head_width, has):
    assert not fused.has_kernel(jnp.bfloat16, 64)  # on the CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(compute_capability=capability)])
    assert fused.has_kernel(dtype, head_width) == has
