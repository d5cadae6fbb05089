#!/usr/bin/env bash
# jax.experimental.pallas.triton.load has a parameter cache_modifier. It refuses every value but ".ca" and ".cg" as unsupported, and
# looks these two up under names without the dot: they raise a KeyError. So no cache modifier can be given, and what other
# multiprocessors have written can only be read past the first-level cache with volatile=True. No GPU is needed to see it.
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
import jax
from jax.experimental.pallas import triton
from lowering import lower

found = {}
for modifier in (".cg", ".ca", "cg", "ca"):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            lower(lambda x, out: triton.store(out.at[0], triton.load(x.at[0], cache_modifier=modifier)))
        found[modifier] = "lowered"
    except (KeyError, ValueError) as error:
        found[modifier] = type(error).__name__
print(f"jax {jax.__version__}:", found)
assert found == {".cg": "KeyError", ".ca": "KeyError", "cg": "ValueError", "ca": "ValueError"}
END
