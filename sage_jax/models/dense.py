"""Parameters, and matrix products of activations and kernels in the layout that runs fastest on each device."""

import functools
import math
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer

SPLIT_K = 4  # partial products of a single row on the CPU
DENSE_OUTPUT = "dense_output"  # name for rematerialization policies


def parameter(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> jax.Array:
    """The parameter `name` of a module, of `shape`. A kernel, [*in, *out], may be held as a matrix, see `matrix_shape`.

    Unlike flax's `param`, it does not trace the initializer of a parameter that is there. Raises ValueError for a given array
    of another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    given = module.get_variable("params", name)
    if given.shape not in (shape, matrix_shape(name, shape)):
        raise ValueError(f"{module.name} has a parameter {name} of shape {given.shape} instead of {shape}")
    return given.reshape(shape)


def matrix_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a kernel as a matrix of inputs and outputs. Only an `output` has several dimensions of inputs.

    A TPU pads the last two dimensions of an array to whole tiles. It would lay out a kernel [D, 2, F] anew for each product.
    """
    if len(shape) < 3:
        return shape
    inputs = len(shape) - 1 if name == "output" else 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])


def dense(x: jax.Array, kernel: jax.Array, inputs: int = 1) -> jax.Array:
    """x [..., *in] times kernel [*in, *out] -> [..., *out], where `in` is `inputs` dimensions.

    Joint kernels keep separate dimensions, for example for heads, so that each dimension can be sharded.

    A product with a single row on the CPU, as in decoding at batch 1, is bound by memory bandwidth. It runs as split-K: the
    kernel's rows are split into SPLIT_K contiguous chunks whose partial products are summed, so that each core reads memory
    sequentially.
    """
    batch, outputs = x.shape[: x.ndim - inputs], kernel.shape[inputs:]
    D = math.prod(kernel.shape[:inputs])
    product = lambda x, kernel: checkpoint_name(_dense(x, kernel, inputs), DENSE_OUTPUT)
    if x.size != D or D % SPLIT_K:
        return product(x, kernel)

    def split_k(x: jax.Array, kernel: jax.Array) -> jax.Array:
        parts = x.reshape(SPLIT_K, D // SPLIT_K), kernel.reshape(SPLIT_K, D // SPLIT_K, -1)
        products = jnp.einsum("pd,pdf->pf", *parts, preferred_element_type=_sum_dtype(x))
        return products.sum(axis=0).astype(x.dtype).reshape(*batch, *outputs)

    return jax.lax.platform_dependent(x, kernel, cpu=split_k, default=product)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: jax.Array, kernel: jax.Array, inputs: int) -> jax.Array:
    """The product, with a gradient that has the kernel's own layout.

    JAX's rule computes it as [*out, *in]; XLA's CPU backend then copies it, or each optimizer pass reads it transposed.
    """
    return _dot(x, kernel, range(x.ndim - inputs, x.ndim), range(inputs))


def _forward(x: jax.Array, kernel: jax.Array, inputs: int):
    return _dense(x, kernel, inputs), (x, kernel)


def _backward(inputs: int, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array):
    x, kernel = residuals
    batch = x.ndim - inputs
    x_gradient = _dot(gradient, kernel, range(batch, gradient.ndim), range(inputs, kernel.ndim))
    return x_gradient, _dot(x, gradient, range(batch), range(batch))


_dense.defvjp(_forward, _backward)


def _dot(a: jax.Array, b: jax.Array, a_axes: Iterable[int], b_axes: Iterable[int]) -> jax.Array:
    """Contracts `a_axes` of a with `b_axes` of b. Each must be the first or the last axes of its array.

    On one device both arrays become matrices, so that XLA moves no dimensions before the product. On a mesh of several devices
    a reshape would gather sharded dimensions.
    """
    a_axes, b_axes = tuple(a_axes), tuple(b_axes)

    def dot_general(a: jax.Array, b: jax.Array, dimensions) -> jax.Array:
        # A GPU multiplies a single row of bfloat16 in bfloat16 unless the sum is float32. More rows would differ from it.
        return jax.lax.dot_general(a, b, dimensions, preferred_element_type=_sum_dtype(a)).astype(a.dtype)

    if _is_sharded():
        return dot_general(a, b, ((a_axes, b_axes), ((), ())))
    shape, contracted = [], []
    for array, axes in ((a, a_axes), (b, b_axes)):
        shape += [size for dimension, size in enumerate(array.shape) if dimension not in axes]
        contracted.append(1 if axes and axes[0] else 0)
    length = math.prod(a.shape[dimension] for dimension in a_axes)
    a, b = (array.reshape((length, -1) if axis == 0 else (-1, length)) for array, axis in zip((a, b), contracted, strict=True))
    return dot_general(a, b, (((contracted[0],), (contracted[1],)), ((), ()))).reshape(shape)


def _is_sharded() -> bool:
    """Whether the function that is traced shards its arrays: over the mesh that training/sharding.py traces it under.

    Under pmap the axes are manual, and each device has arrays of its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return any(size > 1 for name, size in mesh.shape.items() if name not in mesh.manual_axes)


def _sum_dtype(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def fan_in_init(init: Initializer, inputs: int = 1) -> Initializer:
    """`init` for a kernel [*in, *out] as a matrix, so that the fan-in is the product of all `inputs` dimensions."""

    def init_kernel(key, shape, dtype=jnp.float32, out_sharding=None):
        return init(key, (math.prod(shape[:inputs]), math.prod(shape[inputs:])), dtype).reshape(shape)

    return init_kernel
