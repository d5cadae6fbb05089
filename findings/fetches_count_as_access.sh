#!/usr/bin/env bash
# cost_analysis()["bytes accessed"] of a program for a TPU v5e is several times what the program moves to and from the main memory. Matrices
# are fetched into the vector memory before they are used (slice-start, copy-start in the HLO). The count then has each of them three
# times or more: read from the main memory, written to the vector memory, and read there. Eight products of one small array with
# matrices of 8 MiB, which must be read once: bytes accessed are more than three times these 64 MiB. Compiled without a TPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jax[tpu]==0.10.2" 2>/dev/null
JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v5litepod-4 TPU_WORKER_HOSTNAMES=localhost "$folder/venv/bin/python" -W ignore - <<'END'
import importlib.metadata
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[:1]
place = NamedSharding(Mesh(np.array(devices), ("d",)), PartitionSpec())
array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)

def products(x, matrices):
    for matrix in matrices:
        x = jnp.tanh(x @ matrix)
    return x

compiled = jax.jit(products).lower(array(8, 2048), [array(2048, 2048)] * 8).compile()
matrices = 8 * 2048 * 2048 * 2
ratio = compiled.cost_analysis()["bytes accessed"] / matrices
fetches = sum(compiled.as_text().count(name) for name in ("slice-start(", "copy-start("))
versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu"))
print(f"{versions}: {ratio:.2f} bytes accessed for each byte of the matrices, which are read once; {fetches} fetches")
assert ratio > 3 and fetches > 0
END
