#!/usr/bin/env bash
# A program that is compiled for a TPU on a machine without one is written to jax's persistent compilation cache, and can't be read back:
# the second process finds the entry, warns "PjRtCompiler must be constructed with a Client to call DeserializeLoadedExecutable", and
# compiles again. The entry stays, and so does the warning. For a CPU the same cache saves the second compilation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jax[tpu]==0.10.2" 2>/dev/null
compile() { # $1: tpu or cpu. Prints the number of stored entries, and the warnings of a read that failed
  JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v5litepod-4 TPU_WORKER_HOSTNAMES=localhost \
    "$folder/venv/bin/python" - "$folder/cache_$1" "$1" <<'END'
import os, sys, warnings
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

os.makedirs(sys.argv[1], exist_ok=True)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
is_tpu = sys.argv[2] == "tpu"
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices if is_tpu else jax.devices()
place = NamedSharding(Mesh(np.array(devices[:1]), ("d",)), PartitionSpec())
array = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=place)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    jax.jit(lambda x: jnp.tanh(x @ x)).lower(array).compile()
failed = [each for each in caught if "Error reading persistent compilation cache" in str(each.message)]
print(len([name for name in os.listdir(sys.argv[1]) if name.endswith("-cache")]), len(failed))
END
}
cpu_first=$(compile cpu) cpu_second=$(compile cpu) tpu_first=$(compile tpu) tpu_second=$(compile tpu)
echo "jax $("$folder/venv/bin/python" -c 'import jax; print(jax.__version__)'), (entries, failed reads) of the first and second process:"
echo "cpu ($cpu_first) ($cpu_second); v5e ($tpu_first) ($tpu_second)"
[ "$cpu_first" = "1 0" ] && [ "$cpu_second" = "1 0" ] && [ "$tpu_first" = "1 0" ] && [ "$tpu_second" = "1 1" ]
