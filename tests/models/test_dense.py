"""dense() equals the plain matrix product, in its values and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

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


def test_a_product_keeps_its_dimensions_on_a_mesh_only():
    """A reshape of them would gather what the mesh shards."""
    kernel = jnp.ones((8, 4, 2))
    lowered = lambda: jax.jit(lambda x, kernel: dense(x, kernel)).lower(jnp.ones((6, 3, 8)), kernel).as_text()
    matrices = "(tensor<18x8xf32>, tensor<8x8xf32>)"
    assert matrices in lowered()
    with jax.sharding.use_abstract_mesh(mesh_of(2)):
        assert "(tensor<6x3x8xf32>, tensor<8x4x2xf32>)" in lowered()
    with jax.sharding.use_abstract_mesh(mesh_of(1)):
        assert matrices in lowered()


def mesh_of(devices: int) -> AbstractMesh:
    return AbstractMesh((devices,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    ("batch", "inputs", "outputs"),
    [((2, 3), (8,), (5,)), ((4,), (2, 3), (5, 7)), ((), (6,), (5,)), ((2, 3), (8,), ())],
    ids=str,
)
def test_gradient_is_that_of_the_matrix_product(batch, inputs, outputs, devices):
    rng = np.random.default_rng(0)
    shapes = batch + inputs, inputs + outputs, batch + outputs
    x, kernel, factor = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    ours = lambda x, kernel: jnp.sum(jnp.sin(dense(x, kernel, len(inputs))) * factor)
    plain = lambda x, kernel: jnp.sum(jnp.sin(jnp.tensordot(x, kernel, len(inputs))) * factor)
    with jax.sharding.use_abstract_mesh(mesh_of(devices)):
        gradients = jax.make_jaxpr(jax.grad(ours, (0, 1)))(x, kernel)
    found = jax.jit(lambda *args: jax.core.eval_jaxpr(gradients.jaxpr, gradients.consts, *args))(x, kernel)
    for actual, expected in zip(found, jax.jit(jax.grad(plain, (0, 1)))(x, kernel), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)
