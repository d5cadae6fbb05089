"""jax's persistent compilation cache, switched on: a program that was compiled once on this machine is loaded from disk.

programs.py keeps whole programs in the same folder, which load without being traced.
"""

import pathlib
import sys

import jax

from sage_jax.files import evict, user_cache

MAX_BYTES = 2 << 30


def default_folder() -> pathlib.Path:
    """The user's cache folder: $XDG_CACHE_HOME or ~/.cache, ~/Library/Caches on macOS; `sage_jax/compiled` in it."""
    base = pathlib.Path.home() / "Library" / "Caches" if sys.platform == "darwin" else user_cache()
    return base / "sage_jax" / "compiled"


def enable() -> None:
    """Keeps compiled programs in `default_folder`. If it has more than MAX_BYTES, those used least recently are deleted first.

    jax's own limit is not used. With it, jax looks at every entry whenever it adds one (findings/limit_reads_all_entries.sh).

    Does nothing where jax has a cache folder already ($JAX_COMPILATION_CACHE_DIR or jax.config), where caching is off
    ($JAX_ENABLE_COMPILATION_CACHE=false), and where the folder can't be written.
    """
    values = jax.config.values
    if values["jax_compilation_cache_dir"] or not values["jax_enable_compilation_cache"]:
        return
    folder = default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    evict(folder, MAX_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # jax's own limits keep nothing that compiles in under a second, which is most of what a small model has.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
