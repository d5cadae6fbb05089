"""Packed rows: each segment has the loss it has alone, whatever the attention implementation and the remat policy."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models import flash_attention
from sage_jax.models.backbone import REMAT_POLICIES
from sage_jax.models.config import REMATS
from sage_jax.models.registry import build_model
from sage_jax.tokenizers.note_events import HEAD
from sage_jax.training.step import cross_entropy, segment_ids_of
from tests.models.small import join_values, parameters, random_events, small_config
from tests.training.tiny import tiny_config

LENGTHS = (5, 7, 4)  # events of the pieces in a row
ROW_LENGTH = 17  # events of a row, and the target of the last one
PACKED = [
    dict(attribute_scope="mixed", query_chunk_size=8),
    dict(architecture="nested", lookahead=2),
]


def one_layer(**changes):
    return small_config(**{"num_layers": 1, "num_heads": 10, "head_dim": 4, "query_chunk_size": 64, **changes})


def packed_and_padded(config) -> tuple[jax.Array, jax.Array]:
    """The same pieces, which begin with BOS, as one packed row [1, ROW_LENGTH, A] and as padded rows [3, ROW_LENGTH, A]."""
    padded = np.zeros((len(LENGTHS), ROW_LENGTH, config.num_attributes), np.int32)
    for row, length in zip(padded, LENGTHS, strict=True):
        row[:length] = np.maximum(random_events(config, 1, length, length)[0], 2)
        row[0] = 1
    packed = np.concatenate([row[:length] for row, length in zip(padded, LENGTHS, strict=True)])
    return jnp.asarray(np.pad(packed, ((0, ROW_LENGTH - len(packed)), (0, 0)))[None]), jnp.asarray(padded)


@pytest.mark.parametrize("changes", PACKED, ids=join_values)
def test_packing_does_not_change_loss_and_gradient(changes):
    """Up to the order of summation."""
    config = one_layer(**changes)
    model = build_model(config)

    def loss(params, events, packed):
        inputs = events[:, :-1]
        sums = cross_entropy(model.apply({"params": params}, inputs, segment_ids_of(inputs) if packed else None), events)
        return sums.nll.sum(), sums

    losses = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=2)
    packed_row, padded_rows = packed_and_padded(config)
    (_, packed), gradient = losses(parameters(config), packed_row, True)
    (_, padded), expected = losses(parameters(config), padded_rows, False)
    np.testing.assert_allclose(packed.nll, padded.nll, rtol=1e-5)
    assert (packed.notes, packed.tokens) == (padded.notes, padded.tokens)
    assert packed.tokens == sum(config.num_attributes * (length - HEAD) for length in LENGTHS)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4), gradient, expected)


def test_packing_is_rejected_for_the_delay_pattern():
    with pytest.raises(UserError, match=r"config.data.pack is True, but with model.architecture = delay"):
        RunConfig.from_dict(tiny_config(data=dict(pack=True), model=dict(architecture="delay")).to_dict())


@functools.cache
def loss_and_gradient(config, packed):
    row, _ = packed_and_padded(config)

    def loss(params):
        logits = build_model(config).apply({"params": params}, row, segment_ids_of(row) if packed else None)
        return sum(jax.nn.logsumexp(block, axis=-1).sum() for block in logits)

    return jax.jit(jax.value_and_grad(loss))(parameters(dataclasses.replace(config, attention_impl="chunked", remat="scores")))


@pytest.mark.parametrize(
    "changes",
    [
        dict(attention_impl="flash", kv_sharing="gqa", num_kv_heads=5, packed=False),
        dict(attention_impl="flash", attribute_scope="mixed"),
        dict(attention_impl="flash", attribute_scope="own", kv_heads_per_attribute=2, packed=False),
        dict(attention_impl="flash", attribute_scope="own", architecture="nested"),
        *(dict(remat=remat, query_chunk_size=8) for remat in REMAT_POLICIES),
    ],
    ids=join_values,
)
def test_flash_attention_and_remat_do_not_change_loss_and_gradient(changes):
    packed = changes.get("packed", True)
    config = one_layer(**{field: value for field, value in changes.items() if field != "packed"})
    default = dataclasses.replace(config, attention_impl="chunked", remat="scores")
    actual, expected = loss_and_gradient(config, packed), loss_and_gradient(default, packed)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3), actual, expected)


def test_remat_policies_reduce_residuals():
    """By the number of values that are kept for the backward pass."""
    base = small_config(num_heads=10, head_dim=4, kv_sharing="mqa", query_chunk_size=16)
    params = parameters(base)

    def num_residuals(remat):
        config = dataclasses.replace(base, remat=remat)
        row = jnp.ones((2, 48, config.num_attributes), jnp.int32)
        loss = lambda params: sum(block.sum() for block in build_model(config).apply({"params": params}, row))
        _, vjp = jax.eval_shape(lambda params: jax.vjp(loss, params), params)
        return sum(leaf.size for leaf in jax.tree.leaves(vjp))

    none, scores, dots, full = (num_residuals(remat) for remat in REMATS)
    assert 2 * full < dots < scores < none / 2


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "expected"),
    [
        ("9.0", "bfloat16", 64, True),
        ("7.5", "bfloat16", 64, False),
        ("gfx942", "bfloat16", 64, False),
        ("9.0", "float32", 64, False),
        ("9.0", "bfloat16", 12, False),
    ],
)
def test_flash_kernel_needs_ampere_and_bfloat16(capability, dtype, head_dim, expected):
    gpu = types.SimpleNamespace(platform="gpu", compute_capability=capability)
    assert flash_attention.has_kernel(gpu, dtype, head_dim) == expected


def test_auto_becomes_flash_only_where_the_device_has_a_kernel():
    gpu = types.SimpleNamespace(platform="gpu", compute_capability="9.0", device_kind="NVIDIA H100")
    cpu = types.SimpleNamespace(platform="cpu", device_kind="cpu")
    config = small_config(head_dim=8, dtype="bfloat16")
    impl = lambda impl, device: flash_attention.resolve(dataclasses.replace(config, attention_impl=impl), device).attention_impl
    assert [impl("auto", gpu), impl("flash", gpu), impl("chunked", gpu)] == ["flash", "flash", "chunked"]
    assert [impl("auto", cpu), impl("chunked", cpu)] == ["chunked", "chunked"]
    with pytest.raises(UserError, match=r"attention_impl is flash, .*; this is bfloat16, 8 and cpu: give auto or chunked"):
        impl("flash", cpu)
