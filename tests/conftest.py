"""What every test runs under: JAX on the CPU and strict, hypothesis without chance or deadlines."""

import dataclasses
import functools
import gc
import os

# Set before anything imports jax, and inherited by the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # [B, N] + [N] must be spelled out
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # lowered programs without call stacks: an eighth less time
# Tests compile much and compute little. The emitters of fusions take 2.5 times as long to compile as those before them, which
# jaxlib 0.10 and 0.11 still have. A later one would ignore an option that it does not know.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_xnnpack=false",
]
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

# Workers and their processes share compiled programs, and later runs of the tests find them again.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    from sage_jax.files import evict, user_cache

    CACHE = user_cache() / "sage_jax" / "tests"
    evict(CACHE, 1 << 30)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.02"

# Tests replace functions and classes, which the key of a stored program can't know. tests/test_programs.py switches it on.
os.environ.setdefault("SAGE_JAX_PROGRAMS", "false")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")

# The longest modules start first, so that none of them is left to one worker at the end.
LONGEST = (
    "test_engine.py", "test_scheduler.py", "test_session.py", "test_study.py", "test_fused.py", "test_hosts.py",
    "test_decode.py", "test_sharding.py", "test_registry.py", "test_transformer.py", "test_takes.py", "test_api.py",
    "test_performance.py", "test_evaluate.py", "test_packed.py", "test_page.py", "test_readme.py", "test_survival.py",
    "test_packaging.py", "test_remi_grammar.py", "test_suite.py", "test_reading.py", "test_tasks.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def quick_init():
    """Models of this module begin with tests/initial_values.py, for usefixtures."""
    from sage_jax.models.backbone import Backbone
    from tests.initial_values import quick_init

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "init", quick_init)
        yield


class CompiledOnce:
    """A jitted function whose ahead-of-time compilation is cached."""

    def __init__(self, jitted):
        self.jitted, self.compiled = jitted, None

    def lower(self, *args):
        self.compiled = self.compiled or self.jitted.lower(*args).compile()
        return self

    def compile(self):
        return self.compiled


@pytest.fixture(scope="module")
def compiled_once():
    """Makes runs share what they compile, as a tiny run does little else.

    They may differ in the seed, the weights that they begin with, and the number of steps if the learning rate does not depend
    on it.
    """
    from sage_jax.training import loop

    make_train_functions = loop.make_train_functions

    @functools.cache
    def shared(run, representation):
        functions = make_train_functions(run, representation)
        train_step, eval_step = CompiledOnce(functions.train_step), CompiledOnce(functions.eval_step)
        return dataclasses.replace(functions, train_step=train_step, eval_step=eval_step)

    def of_any_seed(run, representation):
        steps = 1 if run.optimizer.final_lr_fraction == 1 else run.train.steps
        train = dataclasses.replace(run.train, seed=0, steps=steps, init_from="")
        return shared(dataclasses.replace(run, train=train), representation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_functions", of_any_seed)
        yield


@pytest.fixture(scope="module")
def shared_programs():
    """Makes engines of this module share their compiled programs, as an engine and its siblings do."""
    from sage_jax.decoding.engine import Engine

    own_init, programs = Engine.__init__, {}

    @functools.wraps(own_init)
    def init(self, *arguments, **keywords):
        own_init(self, *arguments, **keywords)
        self._programs = programs.setdefault(self._identity, self._programs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "__init__", init)
        yield


# These use the same engines, and run in one process.
SHARING_ENGINES = ("test_engine.py", "test_scheduler.py", "test_session.py", "test_live.py", "test_play.py")


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps the tests of a module in one process, which makes its fixtures once.

    pytest-xdist's own groups (--dist loadgroup) are lost without a word with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return "engines" if path.rpartition("/")[2] in SHARING_ENGINES else path

    return ByModule(config, log)


@pytest.fixture(scope="module", autouse=True)
def _freeze_garbage_of_earlier_modules():
    """Compiled programs stay until the process ends. Unfrozen, each garbage collection would look through them for seconds."""
    gc.collect()
    gc.freeze()
