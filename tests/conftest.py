"""What every test runs under: JAX on the CPU and strict, hypothesis without chance or deadlines."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile

# Set before anything imports jax, and inherited by the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # [B, N] + [N] must be spelled out
# Tests compile much and compute little.
FLAGS = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # where the fusion emitters make compilation 2.5 times as long
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # unknown to later jaxlibs, which would abort
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

# Workers and their processes share compiled programs through a folder that goes with the process that made it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="sage_jax_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")

# The longest modules start first, so that none of them is left to one worker at the end.
LONGEST = (
    "test_study.py", "test_hosts.py", "test_suite.py", "test_survival.py", "test_readme.py", "test_engine.py",
    "test_scheduler.py", "test_session.py", "test_sharding.py",
    "test_evaluate.py", "test_api.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def _freeze_garbage_of_earlier_modules():
    """Compiled programs stay until the process ends. Unfrozen, each garbage collection would look through them for seconds."""
    gc.collect()
    gc.freeze()
