"""Compiled programs on disk: what this machine has compiled once is loaded in the next process without being traced.

jax's own cache (compilation_cache.py) is found by the lowered program, so each process traces and lowers it first. An entry
here is found by what tracing depends on: the code, the versions, the devices, jax's settings, the arguments and a key.

The entries are pickles, and loading one runs what is in it. So they lie in a folder that only its owner may write, and an entry
of another owner is not read.
"""

import contextlib
import functools
import hashlib
import marshal
import os
import pathlib
import pickle
import platform
import re
import stat
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from sage_jax.environment import code_checksum, cores, processor_features
from sage_jax.files import evict

MAX_BYTES = 1 << 30  # the entries that were used least recently go first
SWITCH = "SAGE_JAX_PROGRAMS"  # environment variable
OFF = ("0", "false", "off", "no")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
MAGIC = b"sage_jax entry 1\n"
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")  # environment variables that change what XLA compiles
# Settings of jax that change where programs are kept and what is logged, but no program.
IRRELEVANT = re.compile(r"jax_(enable_compilation_cache|(raise_)?(compilation|persistent)_cache|log|dump|explain)")
CODE = code_checksum()  # of the modules that this process runs; those on disk may change while it does
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")

_jax_cache_lock, _jax_cache_users = threading.Lock(), 0


def folder() -> pathlib.Path | None:
    """Where programs are kept: `programs` in jax's cache folder. None where they are not kept.

    They are not kept where jax's caching is off or not on a local disk, with $SAGE_JAX_PROGRAMS=false, and on several hosts.
    Nor are they where another user owns the folder or may write to it.
    """
    cache = jax.config.values["jax_compilation_cache_dir"]
    switched_off = os.environ.get(SWITCH, "").lower() in OFF
    if switched_off or not cache or "://" in cache or not jax.config.values["jax_enable_compilation_cache"]:
        return None
    path = pathlib.Path(cache) / "programs"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError:
        return None
    return path if _is_private(found) and jax.process_count() == 1 else None


def load_or_compile(jitted: Any, *args: Any, key: Any) -> jax.stages.Compiled:
    """`jitted`, a jax.jit of a function, compiled for `args`: loaded from disk where it is there, else compiled and kept there.

    args: arrays or ShapeDtypeStructs, and static arguments. Donation and shardings are those of `jitted`.
    key: everything else that tracing depends on and that is not code of sage_jax. Examples are a config, the arguments of a
    functools.partial, and the shardings and the donation of `jitted` where they vary. Its repr must be the same in every
    process. Raises ValueError for a repr that holds a memory address.
    """
    store = folder()
    if store is None:
        return jitted.lower(*args).compile()
    name = _name(jitted)
    request = store / f"{name}-{_digest(_trace_text(jitted, args, key), _machine())}.request"
    known = _read(request)
    if isinstance(known, str) and (compiled := _load(store / known)) is not None:
        return compiled
    # The code has changed, or this is new. Most changes leave a program as it is, so it may be here under its lowered text.
    lowered = jitted.lower(*args)
    trees = (str(lowered.in_tree), str(lowered.out_tree), str(lowered.args_info))
    program = store / f"{name}-{_digest(lowered.as_text(), *trees, _settings(), _machine())}.program"
    compiled = _load(program)
    if compiled is None:
        with _without_jax_cache():
            compiled = lowered.compile()
        _save(program, compiled)
    if program.exists() and code_checksum() == CODE:
        _write(request, program.name)
    evict(store, MAX_BYTES)
    return compiled


def stored(jitted: Callable, key: Any = None) -> Callable:
    """`jitted` with its programs from disk, one for each kind of arguments. key: as in `load_or_compile`.

    For small functions that are called in passing, without static arguments.
    """
    programs: dict[Any, Callable] = {}

    @functools.wraps(jitted)
    def call(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        if folder() is None or any(isinstance(leaf, Tracer) for leaf in leaves):
            return jitted(*args)
        kind = (tree, *map(_describe, leaves))
        if kind not in programs:
            programs[kind] = load_or_compile(jitted, *args, key=key)
        return programs[kind](*args)

    return call


def shapes_of(function: Callable, *args: Any, key: Any) -> Any:
    """jax.eval_shape(function, *args), from disk where it is there. key: as in `load_or_compile`."""
    store = folder()
    if store is None:
        return jax.eval_shape(function, *args)
    path = store / f"{_name(function)}-{_digest('shapes', _trace_text(function, args, key), _machine())}.shapes"
    shapes = _read(path)
    if shapes is None:
        shapes = jax.eval_shape(function, *args)
        if code_checksum() == CODE:
            _write(path, shapes)
    return shapes


# What a program depends on


def _trace_text(function: Callable, args: tuple, key: Any) -> str:
    """What tracing `function` depends on, as text."""
    leaves, tree = jax.tree.flatten(args)
    code = [hashlib.sha256(marshal.dumps(part.__code__)).hexdigest() for part in _functions(function)]
    parts = (_name(function), code, repr(key), str(tree), [_describe(leaf) for leaf in leaves], CODE, _settings())
    text = "\n".join(map(str, parts))
    if found := ADDRESS.search(text):
        raise ValueError(f"a program's key must be the same in every process, but it has an object {found[0]}; give its fields")
    return text


def _functions(function: Any) -> Iterator[Any]:
    """The Python functions inside jit, functools.partial and bound methods."""
    while function is not None:
        if hasattr(function, "__code__"):
            yield function
        function = next(
            (getattr(function, name) for name in ("__wrapped__", "func", "__func__") if hasattr(function, name)), None
        )


def _name(function: Callable) -> str:
    return next((re.sub(r"\W+", "_", part.__qualname__).strip("_") for part in _functions(function)), "function")[-60:]


def layout_of(leaf: Any) -> Any:
    """The layout in memory of an array or a ShapeDtypeStruct; None where it has none."""
    return getattr(getattr(leaf, "format", None), "layout", None)


def _describe(leaf: Any) -> str:
    """What lowering depends on in an argument. A static one is described by its repr."""
    if not hasattr(leaf, "dtype"):
        return repr(leaf)
    sharding = getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None
    devices = getattr(getattr(sharding, "mesh", None), "device_ids", None)
    order = getattr(layout_of(leaf), "major_to_minor", ())
    moved = "" if order == tuple(range(len(order))) else f" {order}"
    weak = getattr(leaf, "weak_type", False)
    return f"{np.shape(leaf)} {leaf.dtype} {weak} {sharding} {None if devices is None else devices.tolist()}{moved}"


def _settings() -> str:
    """jax's settings, as this thread has them."""
    names = sorted(name for name in jax.config.values if not IRRELEVANT.match(name))
    values = {name: getattr(jax.config, name, None) for name in names}
    return f"{values} {jax.sharding.get_abstract_mesh()}"


@functools.cache
def _machine() -> str:
    """Versions and devices, as text. On a CPU also its features and the number of cores, for which XLA compiles."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    devices = [(device.id, device.platform, device.device_kind) for device in jax.devices()]
    processor = (processor_features(), cores()) if devices[0][1] == "cpu" else ()
    flags = {name: os.environ.get(name) for name in FLAGS}
    return f"{platform.python_version()} {versions} {devices} {jax.devices()[0].client.platform_version} {processor} {flags}"


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


# Programs


def _load(path: pathlib.Path) -> jax.stages.Compiled | None:
    saved = _read(path)
    if saved is None:
        return None
    try:
        serialized, in_tree, out_tree, ids = saved
        devices = {device.id: device for device in jax.devices()}
        return serialize_executable.deserialize_and_load(
            serialized, in_tree, out_tree, execution_devices=[devices[number] for number in ids]
        )
    except Exception:  # a program that this jaxlib can't load is compiled again, whatever the reason
        return None


def _save(path: pathlib.Path, compiled: jax.stages.Compiled) -> None:
    """Writes a program, unless this backend can't serialize it."""
    try:
        ids = _device_ids(compiled)
        serialized = serialize_executable.serialize(compiled)
    except Exception:  # jax raises many kinds; such a program is compiled at each start
        return
    if ids:
        _write(path, (*serialized, ids))


def _device_ids(compiled: jax.stages.Compiled) -> list[int]:
    """The devices of a program in its own order; empty if that is unknown."""
    shardings = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
    meshes = [sharding.mesh for sharding in shardings if isinstance(sharding, jax.sharding.NamedSharding)]
    orders = {tuple(mesh.device_ids.flat) for mesh in meshes if isinstance(mesh, jax.sharding.Mesh)}
    orders |= {tuple(device.id for device in sharding.device_set) for sharding in shardings if len(sharding.device_set) == 1}
    return list(orders.pop()) if len(orders) == 1 else []


@contextlib.contextmanager
def _without_jax_cache() -> Iterator[None]:
    """Switches jax's cache off: on a CPU a program that came from it can't be serialized again. Threads may overlap."""
    global _jax_cache_users
    with _jax_cache_lock:
        _jax_cache_users += 1
        jax.config.update("jax_enable_compilation_cache", False)
        jax_cache.reset_cache()  # jax looks at the setting once, then no more
    try:
        yield
    finally:
        with _jax_cache_lock:
            _jax_cache_users -= 1
            if not _jax_cache_users:
                jax.config.update("jax_enable_compilation_cache", True)
                jax_cache.reset_cache()


# Entries


def _is_private(found: os.stat_result) -> bool:
    """Whether this user owns a file or folder and nobody else may write to it."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(path: pathlib.Path) -> Any:
    """The value of an entry, which counts as used now. None without one, and for a damaged one or another user's."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or not _is_private(found):
                return None
            content = file.read()
            os.utime(file.fileno())
        head, data = content[: len(MAGIC) + 32], content[len(MAGIC) + 32 :]
        return pickle.loads(zlib.decompress(data)) if head == MAGIC + hashlib.sha256(data).digest() else None
    except Exception:  # among others: a class of the entry has moved
        return None


def _write(path: pathlib.Path, value: Any) -> None:
    """Writes an entry in one piece, or not at all: the last of several writers wins. A full disk is no error."""
    data = zlib.compress(pickle.dumps(value), 1)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)  # readable by its owner alone
        with open(handle, "wb") as file:
            file.write(MAGIC + hashlib.sha256(data).digest() + data)
        os.replace(temporary, path)
    except OSError:
        if temporary:
            pathlib.Path(temporary).unlink(missing_ok=True)
