#!/usr/bin/env bash
# safetensors 0.8.0 with jax 0.10.2: safetensors.flax.save and save_file replace the arrays in the caller's dictionary by arrays of NumPy.
# Whoever samples from the parameters after a save uses copies on the host, sent to the device again at each call.
# Also, load does not read what save made of a bfloat16: it raises KeyError: 'BF16'. save_file and load_file do.
# Guesses: saving leaves its argument alone, and load undoes save. Nothing in the documentation says otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 safetensors==0.8.0 2>/dev/null
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - "$folder/model.safetensors" <<'END'
import sys
import jax, jax.numpy as jnp, safetensors, safetensors.flax as flax

path = sys.argv[1]
parameters = {"weight": jnp.ones((2, 3), jnp.bfloat16)}
before = isinstance(parameters["weight"], jax.Array)
flax.save_file(parameters, path)
after = isinstance(parameters["weight"], jax.Array)
data = flax.save({"weight": jnp.ones((2, 3), jnp.bfloat16)})
by_file = flax.load_file(path)["weight"].dtype
try:
    by_bytes = flax.load(data)["weight"].dtype
except KeyError as error:
    by_bytes = repr(error)
print("safetensors", safetensors.__version__, "jax", jax.__version__)
print("an array of jax before the save:", before, "after it:", after, "now", type(parameters["weight"]))
print("bfloat16 by save_file and load_file:", by_file, "by save and load:", by_bytes)
sys.exit((before, after, str(by_file), by_bytes) != (True, False, "bfloat16", "KeyError('BF16')"))
END
