"""The product of activations and a kernel, in the form that the device does fastest."""

import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer

PARTS = 4
PRODUCT = "product"  # its name in policies of rematerialisation


def product(x: jax.Array, kernel: jax.Array, inputs: int = 1) -> jax.Array:
    """x [..., *in] times kernel [*in, *out] -> [..., *out], where in is `inputs` dimensions.

    Heads, and what else is several kernels in one, have dimensions of their own, so that each can be sharded by itself.

    A single row on the CPU, as in decoding alone, is bound by how fast the kernel is read. There its products with PARTS runs
    of the kernel's rows are made apart and added: each core then reads memory in order instead of a column of tiles, which
    took 1.0 to 1.6 times as long. The kernel is stored as it always is.
    """
    kept, outputs = x.shape[: x.ndim - inputs], kernel.shape[inputs:]
    D = math.prod(kernel.shape[:inputs])
    if x.size != D or D % PARTS or jax.default_backend() != "cpu":
        return checkpoint_name(_product(x, kernel, inputs), PRODUCT)
    parts = jnp.einsum("pd,pdf->pf", x.reshape(PARTS, D // PARTS), kernel.reshape(PARTS, D // PARTS, -1))
    return parts.sum(axis=0).reshape(*kept, *outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel: jax.Array, inputs: int) -> jax.Array:
    """The gradient for the kernel is made as the kernel lies; jax's own rule makes it as [*out, *in], and XLA's CPU backend then
    copies it, or has every pass of the optimizer read one array across the others."""
    return _dot(x, kernel, range(x.ndim - inputs, x.ndim), range(inputs))


def _forward(x: jax.Array, kernel: jax.Array, inputs: int):
    return _product(x, kernel, inputs), (x, kernel)


def _backward(inputs: int, operands: tuple[jax.Array, jax.Array], of_result: jax.Array):
    x, kernel = operands
    kept = x.ndim - inputs
    of_x = _dot(of_result, kernel, range(kept, of_result.ndim), range(inputs, kernel.ndim))
    return of_x, _dot(x, of_result, range(kept), range(kept))


_product.defvjp(_forward, _backward)


def _dot(a: jax.Array, b: jax.Array, of_a: Iterable[int], of_b: Iterable[int]) -> jax.Array:
    """The sum over dimensions of_a, the first or the last ones of a, and of_b of b, alike.

    On one device both are matrices, so that XLA has no dimensions to move before the product; on several ones that would gather
    what is sharded.
    """
    of_a, of_b = tuple(of_a), tuple(of_b)
    if jax.device_count() > 1:
        return jax.lax.dot_general(a, b, ((of_a, of_b), ((), ())))
    shape, over = [], []
    for array, summed in ((a, of_a), (b, of_b)):
        shape += [size for dimension, size in enumerate(array.shape) if dimension not in summed]
        over.append(1 if summed and summed[0] else 0)
    length = math.prod(a.shape[dimension] for dimension in of_a)
    a, b = (array.reshape((length, -1) if side == 0 else (-1, length)) for array, side in zip((a, b), over, strict=True))
    return jax.lax.dot_general(a, b, (((over[0],), (over[1],)), ((), ()))).reshape(shape)


def as_matrix(init: Initializer, inputs: int = 1) -> Initializer:
    """`init` for a kernel [*in, *out], as if each were one dimension."""

    def of_kernel(key, shape, dtype=jnp.float32):
        return init(key, (math.prod(shape[:inputs]), math.prod(shape[inputs:])), dtype).reshape(shape)

    return of_kernel
