#!/usr/bin/env bash
# Two products that share an array, q x cached keys and q x new keys, become one product on an H100. For it XLA first copies both
# matrices into one: with 5,120 cached keys and five new ones, the whole cache is read and written once more in each step. An
# optimization barrier around q in one of the two products leaves the cache where it is. Compiled without a GPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" jax==0.10.2 2>/dev/null
"${pip[@]}" --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2 2>/dev/null
cat > "$folder/h100.txtpb" <<'END'
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 name: "NVIDIA H100 80GB HBM3" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
END
XLA_FLAGS=--xla_gpu_autotune_level=0 PATH=/usr/bin:/bin "$folder/venv/bin/python" -W ignore - "$folder/h100.txtpb" <<'END'
import importlib.metadata, pathlib, re, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_platforms", "cpu")
target = pathlib.Path(sys.argv[1]).read_text()
devices = topologies.get_topology_desc(platform="cuda", topology_name="x", target_config=target, topology="1x1x1").devices
place = NamedSharding(Mesh(np.array(devices), ("d",)), PartitionSpec())

def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)

def kernels(function, *arrays):
    text = jax.jit(function).lower(*arrays).compile().as_text()
    return [line for line in text[text.index("ENTRY") :].splitlines() if " fusion(" in line or " custom-call(" in line]

product = lambda x, y: jax.lax.dot(x, y, preferred_element_type=jnp.float32)
versions = f"jax {jax.__version__}, jax-cuda13-pjrt {importlib.metadata.version('jax-cuda13-pjrt')}, {devices[0].device_kind}"

def scores(q, cached, new):
    return product(q, cached), product(q, new)

def apart(q, cached, new):
    return product(q, cached), product(jax.lax.optimization_barrier(q), new)

found = {}
for function in (scores, apart):
    lines = kernels(function, array(10, 64), array(64, 5120), array(64, 5))
    found[function.__name__] = [re.search(r"= (\w+\[64,5125\])", line)[1] for line in lines if re.search(r"= \w+\[64,5125\]", line)]
print(f"{versions}, arrays of the cached and the new keys together: {found}")
assert found == {"scores": ["bf16[64,5125]"], "apart": []}
END
