"""Compiled programs on disk: what a second start finds, what it doesn't, and what it refuses to read."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout

from sage_jax import programs, struct

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
traces: list[str] = []


@struct.dataclass
class State(struct.Struct):
    value: jax.Array
    name: str = struct.field(pytree_node=False, default="")


def scaled(x, *, factor=2.0):
    traces.append("scaled")
    return jnp.sin(x) @ x.T * factor


def next_state(state, x):
    traces.append("next_state")
    return state.replace(value=jnp.tanh(state.value + x)), {"sum": x.sum()}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """The store, in a folder of this test."""
    monkeypatch.setenv(programs.SWITCH, "true")
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    traces.clear()
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


def load(*args, function=scaled, key=None, **options):
    """As a new process would: a jitted function that was never traced."""
    jax.clear_caches()
    return programs.load_or_compile(jax.jit(function, **options), *args, key=key)


def entries(store):
    return sorted(path for path in store.iterdir() if path.suffix == ".program") if store.exists() else []


def test_each_layout_of_an_argument_has_a_program_of_its_own(store):
    """Also after a second start. A program refuses arrays of another layout."""
    usual = jax.device_put(X, jax.devices()[0])
    transposed = jax.device_put(usual, Format(Layout(major_to_minor=(1, 0)), usual.sharding))
    expected = np.asarray(load(usual)(usual))
    for _ in range(2):
        np.testing.assert_allclose(np.asarray(load(transposed)(transposed)), expected, rtol=1e-6)
        assert traces == ["scaled"] * 2 and len(entries(store)) == 2
    assert np.asarray(load(usual)(usual)).tobytes() == expected.tobytes()
    assert traces == ["scaled"] * 2


def test_a_second_start_traces_nothing_and_computes_the_same_bits(store):
    first = np.asarray(load(X)(X))
    assert traces == ["scaled"] and len(entries(store)) == 1
    again = load(X)
    assert traces == ["scaled"]
    assert np.asarray(again(X)).tobytes() == first.tobytes()


def test_donation_static_fields_and_structure_survive(store):
    state, shapes = State(jnp.asarray(X), "a"), State(jax.ShapeDtypeStruct(X.shape, X.dtype), "a")
    expected = jax.jit(next_state)(state, X)[0].value
    load(shapes, X, function=next_state, donate_argnums=0)
    traces.clear()
    state = State(jnp.array(X), "a")
    after, sums = load(shapes, X, function=next_state, donate_argnums=0)(state, X)
    assert not traces and state.value.is_deleted() and after.name == "a" and sums["sum"] == X.sum()
    assert np.array_equal(after.value, expected)


@pytest.mark.parametrize(
    ("args", "options"),
    [((X[:2],), {}), ((X.astype(np.int32),), {}), ((X,), dict(key="other")), ((X,), dict(function=lambda x: scaled(x)))],
    ids=["shape", "type", "key", "function"],
)
def test_another_call_is_traced(args, options):
    load(X)
    load(*args, **options)
    assert len(traces) == 2
    load(*args, **options)
    assert len(traces) == 2


def test_settings_of_jax_and_of_xla_are_part_of_the_key(monkeypatch):
    load(X)
    with jax.default_matmul_precision("float32"):
        load(X)
    assert len(traces) == 2
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_cpu_enable_fast_math=false")
    programs._machine.cache_clear()
    load(X)
    programs._machine.cache_clear()
    assert len(traces) == 3


def test_changed_code_is_traced_but_not_compiled_where_the_program_is_the_same(store, monkeypatch):
    load(X)
    monkeypatch.setattr(programs, "CODE", "after an edit")
    monkeypatch.setattr(programs, "code_checksum", lambda: "after an edit")
    load(X)
    load(X)
    assert len(traces) == 2 and len(entries(store)) == 1


def test_code_that_was_edited_after_it_was_imported_leaves_no_trace(store, monkeypatch):
    monkeypatch.setattr(programs, "code_checksum", lambda: "an edit while this process runs")
    load(X)
    programs.shapes_of(scaled, X, key=None)
    assert {path.suffix for path in store.iterdir()} == {".program"}


def test_a_key_without_a_stable_text_is_an_error():
    with pytest.raises(ValueError, match="same in every process"):
        load(X, key=object())


def test_large_constants_are_part_of_the_program(store):
    """They are printed in full in the lowered program, by which it is found after an edit."""
    for last in (1.0, 2.0):
        table = np.append(np.zeros(9999, np.float32), np.float32(last))
        program = load(X, function=lambda x, table=table: x.sum() + jnp.asarray(table), key=last)
        assert program(X)[-1] == np.float32(X.sum()) + np.float32(last)
    assert len(entries(store)) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", b"flip", b"cut"])
def test_a_damaged_entry_is_replaced(store, damage):
    load(X)
    for path in store.iterdir():
        content = path.read_bytes()
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes({b"flip": flipped, b"cut": content[:-9]}.get(damage, damage))
    load(X)
    load(X)
    assert len(traces) == 2


def test_entries_and_folders_that_others_may_write_are_not_read(store, monkeypatch):
    load(X)
    assert store.stat().st_mode & 0o777 == 0o700 and all(path.stat().st_mode & 0o077 == 0 for path in store.iterdir())
    for path in store.iterdir():
        path.chmod(0o620)
    load(X)
    assert len(traces) == 2  # and replaced
    link = next(store.glob("*.request"))
    link.rename(store / "elsewhere")
    link.symlink_to(store / "elsewhere")
    load(X)
    assert len(traces) == 3 and not link.is_symlink()
    monkeypatch.setattr(os, "geteuid", lambda: store.stat().st_uid + 1)
    assert programs.folder() is None
    monkeypatch.undo()
    store.chmod(0o770)
    monkeypatch.setenv(programs.SWITCH, "true")
    assert programs.folder() is None


def test_nothing_is_written_where_caching_is_off(store, monkeypatch):
    monkeypatch.setenv(programs.SWITCH, "false")
    load(X)
    monkeypatch.undo()
    monkeypatch.setenv(programs.SWITCH, "true")
    enabled = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    load(X)
    programs.shapes_of(scaled, X, key=None)
    assert not jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", enabled)
    assert not store.exists()


def test_a_program_that_jax_had_cached_is_stored_whole(store, monkeypatch):
    """On a CPU a program from jax's cache can't be serialized again: it would fail when it is called."""
    seconds = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    programs.jax_cache.reset_cache()
    function = lambda x: jax.lax.sort(jnp.cos(x @ x.T) @ x)
    expected = np.asarray(jax.jit(function)(X))
    jax.clear_caches()
    jitted = jax.jit(function)
    jitted(X)  # from jax's cache
    for _ in range(2):
        assert np.array_equal(programs.load_or_compile(jitted, X, key=None)(X), expected)
        jitted = jax.jit(function)
    assert jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    programs.jax_cache.reset_cache()


def test_the_least_recently_used_go_first(store, monkeypatch):
    for rows in (1, 2, 3):
        load(X[:rows])
        for path in store.iterdir():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    load(X[:1])  # used now
    sizes = sum(path.stat().st_size for path in store.iterdir())
    monkeypatch.setattr(programs, "MAX_BYTES", sizes)
    load(X[:2, :2])
    traces.clear()
    load(X[:1])
    assert not traces
    load(X[:2])
    assert traces == ["scaled"]


def test_shapes_are_kept_too():
    for _ in range(2):
        shapes = programs.shapes_of(next_state, State(X, "a"), X, key=None)
        assert shapes[0].value.shape == X.shape and shapes[0].name == "a"
    assert traces == ["next_state"]


def test_a_stored_function_is_called_like_a_jitted_one():
    for _ in range(2):
        jax.clear_caches()
        function = programs.stored(jax.jit(scaled))
        assert np.array_equal(function(X), function(X)) and function(X[:2]).shape == (2, 2)
    assert len(traces) == 2
    assert jax.vmap(function)(X[None]).shape == (1, 3, 3)  # traced in a larger program


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sage_jax import compilation_cache, programs
compilation_cache.enable()
traces = []
def function(x):
    traces.append(1)
    return x * 2, x.sum()
print("ready", flush=True)
input()
mesh = Mesh(np.array(jax.devices()[::-1]), "d")
rows, whole = NamedSharding(mesh, PartitionSpec("d")), NamedSharding(mesh, PartitionSpec())
x = np.arange(16.0, dtype=np.float32).reshape(8, 2)
program = programs.load_or_compile(jax.jit(function, in_shardings=rows, out_shardings=(rows, whole)), x, key="mesh")
y, total = program(jax.device_put(x, rows))
assert y.sharding == rows and np.array_equal(y, x * 2) and total == 120
one = programs.load_or_compile(jax.jit(function), x, key="one")
assert np.array_equal(one(x)[0], x * 2)
print(len(traces))
"""


def start(code, cache):
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(cache), "XLA_FLAGS": flags, programs.SWITCH: "true"}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)


def finish(process):
    return process.communicate("\n", timeout=100)[0].strip()


@pytest.mark.process
def test_processes_that_write_the_same_program_at_once_and_one_that_reads_it(tmp_path):
    """On four devices, with a mesh in another order than theirs, and on one of them."""
    together = [start(SHARDED, tmp_path) for _ in range(2)]
    for process in together:
        assert process.stdout.readline().strip() == "ready"
    for process in together:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [finish(process) for process in together] == ["1", "1"]  # jax traces a function once for both of its programs
    later = start(SHARDED, tmp_path)
    assert finish(later).split() == ["ready", "0"]
