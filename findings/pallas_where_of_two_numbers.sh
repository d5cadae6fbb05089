#!/usr/bin/env bash
# In a Pallas kernel for a GPU, jnp.where(condition, 2, 0) with two Python numbers is lowered to one bit: adding it to an int32 fails
# with an assertion without a message. With jnp.int32(2) in place of 2, or as a product with the condition, it is lowered as it
# should be. The same kernel runs when it is interpreted, so that tests on a CPU pass. No GPU is needed to see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jax==0.10.2" 2>/dev/null
cat >"$folder/lowering.py" <<'END'
import jax, jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

H100 = AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
MESH = AbstractMesh((1,), ("d",), (AxisType.Auto,), abstract_device=H100)
NUMBER = jax.ShapeDtypeStruct((1,), jnp.int32)

def lower(kernel):
    """Lowers a kernel of one int32 in and one out for a GPU, without one."""
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    call = pl.pallas_call(
        kernel, out_shape=NUMBER, in_specs=[anywhere], out_specs=anywhere, compiler_params=triton.CompilerParams(), debug=True
    )
    with jax.sharding.use_abstract_mesh(MESH):
        jax.jit(call).trace(NUMBER).lower(lowering_platforms=("cuda",))
END
cd "$folder"
JAX_PLATFORMS=cpu PYTHONPATH="$folder" venv/bin/python -W ignore - <<'END'
import contextlib, io
import jax, jax.numpy as jnp
from jax.experimental import pallas as pl
from lowering import NUMBER, lower

KERNELS = {
    "two Python numbers": lambda is_large: jnp.where(is_large, 2, 0),
    "one int32": lambda is_large: jnp.where(is_large, jnp.int32(2), 0),
    "a product": lambda is_large: is_large.astype(jnp.int32) * 2,
}
found = {}
for name, extra in KERNELS.items():
    def kernel(x, out):
        out[0] = x[0] + extra(x[0] > 3)

    assert pl.pallas_call(kernel, out_shape=NUMBER, interpret=True)(jnp.array([5])) == 7
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            lower(kernel)
        found[name] = "lowered"
    except AssertionError as error:
        found[name] = f"AssertionError {error}"
print(f"jax {jax.__version__}:", found)
assert found == {"two Python numbers": "AssertionError ('i32', 'i1')", "one int32": "lowered", "a product": "lowered"}
END
