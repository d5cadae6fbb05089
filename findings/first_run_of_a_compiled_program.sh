#!/usr/bin/env bash
# A program that jax has compiled ahead of time, .lower().compile(), is not ready on a CPU. Its first run is several times as slow as the
# second: XLA prepares each matrix product only then, half a millisecond of it. Another number of rows is another program, and pays
# again. Shown: two hundred products of a few rows with matrices of 512 x 512, which have been read before. The first run takes more
# than three times a later one, for each of 4, 5 and 6 rows. A single row is multiplied in another way and pays nothing of the kind. A
# server that must answer in time has to run each program once, and not only to compile it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jax==0.10.2" 2>/dev/null
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'END'
import importlib.metadata
import statistics
import time
import jax, jax.numpy as jnp, numpy as np

matrices = [jnp.asarray(np.random.default_rng(i).normal(size=(512, 512)).astype(np.float32) / 512**0.5) for i in range(200)]

def milliseconds(rows):
    """Of the first run, and the median of later ones, of a program that is compiled."""
    x = jnp.ones((rows, 512))
    def chain(x, matrices):
        for matrix in matrices:
            x = jnp.tanh(x @ matrix)
        return x
    compiled = jax.jit(chain).lower(x, matrices).compile()
    jax.block_until_ready((x, matrices))
    taken = []
    for _ in range(8):
        began = time.perf_counter()
        jax.block_until_ready(compiled(x, matrices))
        taken.append(1000 * (time.perf_counter() - began))
    return taken[0], statistics.median(taken[1:])

milliseconds(3)  # what the process itself prepares
found = {rows: milliseconds(rows) for rows in (4, 5, 6, 1)}
text = "; ".join(f"{rows} rows: {first:.0f}, then {later:.0f} ms" for rows, (first, later) in found.items())
print(" ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib")), f"first run of {text}")
ratios = {rows: first / later for rows, (first, later) in found.items()}
assert all(ratios[rows] > 3 for rows in (4, 5, 6)) and ratios[1] < 3, ratios
END
