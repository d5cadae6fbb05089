#!/usr/bin/env bash
# jax 0.10.2 does not depend on filelock. With jax_compilation_cache_max_size set and filelock missing, its persistent compilation cache
# stores nothing: the program runs, one warning names filelock, and every later process compiles again. Without the limit the same
# program is stored and loaded. Seen: 0 files with the limit, at least 1 without it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 2>/dev/null
count() { # the files in the cache after two processes; $1: the limit in bytes, -1 for none
  for _ in 1 2; do
    JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - "$folder/cache$1" "$1" <<'END'
import os, sys
import jax, jax.numpy as jnp
os.makedirs(sys.argv[1], exist_ok=True)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_compilation_cache_max_size", int(sys.argv[2]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8))).block_until_ready()
END
  done
  find "$folder/cache$1" -type f | wc -l
}
limited=$(count 1000000000)
unlimited=$(count -1)
echo "jax $("$folder/venv/bin/python" -c 'import jax; print(jax.__version__)'), without filelock: $limited files with a limit, $unlimited without"
[ "$limited" -eq 0 ] && [ "$unlimited" -ge 1 ]
