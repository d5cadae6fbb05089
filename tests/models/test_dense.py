"""dense() equals the plain matrix product, in its values and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.models.dense import SPLIT_K, dense


@pytest.mark.parametrize("shape", [(1, 1, 1, 64), (64,), (1, 63), (2, 64)], ids=str)
def test_dense_is_the_matrix_product(shape):
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(size, np.float32) for size in (shape, (shape[-1], 48)))
    np.testing.assert_allclose(jax.jit(dense)(x, kernel), x @ kernel, atol=2e-5)


def test_split_k_is_used_for_a_single_row_only():
    rows = lambda count: jax.jit(dense).lower(jnp.ones((count, 64)), jnp.ones((64, 48))).as_text()
    chunks = f"tensor<{SPLIT_K}x{64 // SPLIT_K}x48xf32>"
    assert chunks in rows(1) and chunks not in rows(2)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    ("batch", "inputs", "outputs"),
    [((2, 3), (8,), (5,)), ((4,), (2, 3), (5, 7)), ((), (6,), (5,)), ((2, 3), (8,), ())],
    ids=str,
)
def test_gradient_is_that_of_the_matrix_product(batch, inputs, outputs, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    rng = np.random.default_rng(0)
    shapes = batch + inputs, inputs + outputs, batch + outputs
    x, kernel, factor = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    ours = lambda x, kernel: jnp.sum(jnp.sin(dense(x, kernel, len(inputs))) * factor)
    plain = lambda x, kernel: jnp.sum(jnp.sin(jnp.tensordot(x, kernel, len(inputs))) * factor)
    for actual, expected in zip(jax.grad(ours, (0, 1))(x, kernel), jax.grad(plain, (0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)
