#!/usr/bin/env bash
# A Pallas kernel that waits for another program of its grid, by reading a counter in a while loop, does not wait if nothing uses what
# the loop returns. Reading a reference does not count as an effect, so that the loop is removed as dead code, although it reads
# with volatile=True. Nothing reports it: the programs run on and read what is not yet written. Stored, the same result keeps the
# loop. Shown in the module that a GPU would get; no GPU is needed.
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
from jax.experimental.pallas import triton
from lowering import lower

def kernel(counter, out, stores):
    triton.atomic_add(counter, (0,), 1)
    arrived = lambda: triton.load(counter.at[0], volatile=True)
    count = jax.lax.while_loop(lambda count: count < 4, lambda _: arrived(), arrived())
    triton.store(out.at[0], count if stores else jnp.int32(1))

loops = {}
for stores in (False, True):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        lower(lambda counter, out: kernel(counter, out, stores))
    loops[stores] = text.getvalue().count("scf.while")
print(f"jax {jax.__version__}: {loops[False]} loops where the count is not used, {loops[True]} where it is stored")
assert loops == {False: 0, True: 1}
END
