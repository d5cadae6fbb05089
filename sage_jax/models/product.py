"""The product of activations and a kernel, in the form that the device does fastest."""

import math

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

PARTS = 4


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
        over = tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))
        return jax.lax.dot_general(x, kernel, (over, ((), ())))
    parts = jnp.einsum("pd,pdf->pf", x.reshape(PARTS, D // PARTS), kernel.reshape(PARTS, D // PARTS, -1))
    return parts.sum(axis=0).reshape(*kept, *outputs)


def as_matrix(init: Initializer, inputs: int = 1) -> Initializer:
    """`init` for a kernel [*in, *out], as if each were one dimension."""

    def of_kernel(key, shape, dtype=jnp.float32):
        return init(key, (math.prod(shape[:inputs]), math.prod(shape[inputs:])), dtype).reshape(shape)

    return of_kernel
