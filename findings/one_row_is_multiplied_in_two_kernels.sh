#!/usr/bin/env bash
# One row times a bfloat16 matrix [inputs, outputs] becomes two kernels on an H100. The first writes all products as a float32 array of
# the size of the matrix, twice its bytes. The second one sums them. So the product moves five times the bytes of the matrix. If
# the same matrix lies in memory with its inputs next to each other (jax.experimental.layout), it is one kernel, and no
# such array is written. Of eight rows both layouts give a product of matrices. Compiled without a GPU, and without autotuning.
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
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_platforms", "cpu")
target = pathlib.Path(sys.argv[1]).read_text()
devices = topologies.get_topology_desc(platform="cuda", topology_name="x", target_config=target, topology="1x1x1").devices
place = NamedSharding(Mesh(np.array(devices), ("d",)), PartitionSpec())

def array(*shape, order=(0, 1)):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=Format(Layout(major_to_minor=order), place))

def kernels(function, *arrays):
    text = jax.jit(function).lower(*arrays).compile().as_text()
    return [line for line in text[text.index("ENTRY") :].splitlines() if " fusion(" in line or " custom-call(" in line]

product = lambda x, y: jax.lax.dot(x, y, preferred_element_type=jnp.float32)
versions = f"jax {jax.__version__}, jax-cuda13-pjrt {importlib.metadata.version('jax-cuda13-pjrt')}, {devices[0].device_kind}"

narrow = lambda x, y: product(x, y).astype(x.dtype)
found = {}
for rows in (1, 8):
    for order in ((0, 1), (1, 0)):
        lines = kernels(narrow, array(rows, 512), array(512, 640, order=order))
        found[rows, order] = len(lines), any(re.search(r"= f32\[512,640\]", line) for line in lines)
print(f"{versions}, kernels and whether a float32 array of the matrix's size is written, by rows and order of dimensions: {found}")
assert found[1, (0, 1)] == (2, True) and found[1, (1, 0)] == (1, False)
assert not found[8, (0, 1)][1] and found[8, (0, 1)] == found[8, (1, 0)]
END
