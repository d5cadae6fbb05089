#!/usr/bin/env bash
# Compiling a JAX program for an H100 needs neither a GPU nor CUDA: two wheels of 0.4 GB without their dependencies do, where jax[cuda13]
# brings more than 4 GB of NVIDIA's libraries. Not even ptxas is looked for. Only a program with cuDNN's attention needs a
# library: tracing it ends in "cuDNN not found". Shown: a product with a following tanh becomes kernels in the compiled text.
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
import importlib.metadata, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_platforms", "cpu")
target = pathlib.Path(sys.argv[1]).read_text()
devices = topologies.get_topology_desc(platform="cuda", topology_name="x", target_config=target, topology="1x1x1").devices
place = NamedSharding(Mesh(np.array(devices), ("d",)), PartitionSpec())
array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
text = jax.jit(lambda x, y: jnp.tanh(x @ y)).lower(array(256, 256), array(256, 256)).compile().as_text()
kernels = text[text.index("ENTRY") :].count(" fusion(") + text[text.index("ENTRY") :].count(" custom-call(")
nvidia = [each.name for each in importlib.metadata.distributions() if each.name.lower().startswith("nvidia")]
try:
    attend = lambda q: jax.nn.dot_product_attention(q, q, q, is_causal=True, implementation="cudnn")
    jax.jit(attend).lower(array(1, 128, 4, 64))
    attention = "was traced"
except RuntimeError as error:
    attention = f"ended in {error!r}"
print(f"jax {jax.__version__}, jax-cuda13-pjrt {importlib.metadata.version('jax-cuda13-pjrt')}: {kernels} kernels for {devices[0].device_kind}")
print(f"packages of NVIDIA: {nvidia}; attention by cuDNN {attention}")
assert kernels and not nvidia and "cuDNN not found" in attention
END
