#!/usr/bin/env bash
# With a size limit, the persistent compilation cache of jax 0.10.2 looks at every entry whenever it adds one: at its size and at a file
# with the time of its last use. So a small program takes the longer to compile, the more are there.
# Seen with 1,000 programs of one addition: from the first to the last 100, the time of one grows from 25 to 59 ms, and without a limit from
# 23 to 27 ms. The limit of a gigabyte is never reached, and no entry is deleted.
# A guess is that a limit costs nothing until the cache is full.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 filelock==3.20.0 'etils[epath]==1.13.0' 2>/dev/null
cat > "$folder/programs.py" <<'PROGRAM'
import pathlib, statistics, sys, time
import jax

folder, limit = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_compilation_cache_max_size", limit)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
seconds = []
for size in range(1, 1001):
    lowered = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((size,), "float32"))
    start = time.perf_counter()
    lowered.compile()
    seconds.append(time.perf_counter() - start)
entries = len(list(pathlib.Path(folder).glob("*-cache")))
print(entries, statistics.median(seconds[:100]), statistics.median(seconds[-100:]))
PROGRAM
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import importlib.metadata, subprocess, sys

growth = {}
print("jax", importlib.metadata.version("jax"))
for name, limit in {"without a limit": -1, "with a limit of a gigabyte": 1 << 30}.items():
    command = [sys.executable, "-W", "ignore", f"{sys.argv[1]}/programs.py", f"{sys.argv[1]}/cache{limit}", str(limit)]
    entries, first, last = map(float, subprocess.check_output(command, text=True).split())
    print(f"{name}: {entries:.0f} entries; {1e3 * first:.1f} ms for one of the first 100 programs, {1e3 * last:.1f} ms for one of the last")
    assert entries == 1000
    growth[limit] = last / first
assert growth[1 << 30] > 1.7 and growth[-1] < 1.4
PYTHON
