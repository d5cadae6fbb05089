"""What every test runs under: JAX on the CPU and strict, hypothesis without chance or deadlines."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile

# Before anything imports jax; also what the subprocesses of end-to-end tests inherit.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # [B, N] + [N] must be spelled out
# Tests compile much and compute little.
FLAGS = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # whose older way to compile a fusion takes two fifths of the time
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # a later jaxlib has no other way, and ends at flags that it doesn't know
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

# What one worker, or one process that a test starts, has compiled, the others need not; gone with the process that made it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="sage_jax_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import pytest

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")

# Modules that take longest, of which each runs in one worker: begun first, so that none is left to one worker alone at the end.
LONGEST = ("test_study.py", "test_hosts.py", "test_suite.py", "test_survival.py", "test_generate.py", "test_sharding.py", "test_evaluate.py")


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def _what_modules_leave_is_not_looked_through_again():
    """Programs stay for good: at the end of a run each collection of garbage would take seconds, and reading a checkpoint is one."""
    gc.collect()
    gc.freeze()
