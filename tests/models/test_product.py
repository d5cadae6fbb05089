"""A product is the same in whatever form it is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.models.product import PARTS, product


@pytest.mark.parametrize("shape", [(1, 1, 1, 64), (64,), (1, 63), (2, 64)], ids=str)
def test_product_is_the_matrix_product(shape):
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(size, np.float32) for size in (shape, (shape[-1], 48)))
    np.testing.assert_allclose(jax.jit(product)(x, kernel), x @ kernel, atol=2e-5)


def test_only_a_single_row_is_made_in_parts():
    rows = lambda count: jax.jit(product).lower(jnp.ones((count, 64)), jnp.ones((64, 48))).as_text()
    in_parts = f"tensor<{PARTS}x{64 // PARTS}x48xf32>"
    assert in_parts in rows(1) and in_parts not in rows(2)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    ("kept", "summed", "outputs"),
    [((2, 3), (8,), (5,)), ((4,), (2, 3), (5, 7)), ((), (6,), (5,)), ((2, 3), (8,), ())],
    ids=str,
)
def test_the_gradient_is_that_of_the_matrix_product(kept, summed, outputs, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    rng = np.random.default_rng(0)
    shapes = kept + summed, summed + outputs, kept + outputs
    x, kernel, factor = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    made = lambda x, kernel: jnp.sum(jnp.sin(product(x, kernel, len(summed))) * factor)
    plain = lambda x, kernel: jnp.sum(jnp.sin(jnp.tensordot(x, kernel, len(summed))) * factor)
    for ours, wanted in zip(jax.grad(made, (0, 1))(x, kernel), jax.grad(plain, (0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)
