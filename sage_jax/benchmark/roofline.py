"""What bounds a decode step: the bytes that it must move and the operations that it must do, and how fast this device is."""

import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sage_jax.benchmark.worker import serve
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import parameter_shapes

READ_BYTES = 512 << 20  # far more than any cache of a processor
CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def event_step_cost(config: ModelConfig, batch: int, context_events: int) -> tuple[int, int]:
    """(bytes, operations) of drawing one event for each row after a full context.

    Bytes: for each step through the layers, one for each token or one for the event, the weights that it meets, the keys and
    values of the whole context read and its own written; and the weights that are met once an event. Operations: two for each
    weight and row, and four for each key, query head and channel of a head. Rows of embeddings and activations are left out:
    all are small.
    """
    T, H, h = config.tokens_per_event, config.heads, config.head_width
    weights = sum(_weights(config))
    itemsize = jnp.dtype(config.dtype).itemsize
    cache = jax.eval_shape(lambda: Cache.empty(config, batch, context_events)).num_bytes
    new = jax.eval_shape(lambda: Cache.empty(config, batch, 1)).num_bytes
    keys = config.own_heads * context_events + (H - config.own_heads) * context_events * config.keys_per_event
    return weights * itemsize + T * cache + new, batch * (2 * weights + T * config.layers * 4 * keys * h)


def prefill_operations(config: ModelConfig, batch: int, events: int) -> int:
    """Operations of reading `events` events: every weight but those of the output heads, and half of all pairs of tokens."""
    T, h = config.tokens_per_event, config.head_width
    weights = sum(_weights(config, heads=False))
    pairs = (config.own_heads + (config.heads - config.own_heads) * config.keys_per_event) * events**2 * T
    return batch * (2 * weights * events + config.layers * 2 * pairs * h)


def training_operations(config: ModelConfig, batch: int, events: int) -> int:
    """Operations that a step of training needs: a pass through everything, and twice as many for the gradient.

    Two for each weight and the tokens that meet it, four for each pair of tokens of which one may attend to the other, query
    head and channel: by causality half of all pairs, and in own heads of as_kvhs those of one attribute. Not counted are what blocks of
    queries compute above the diagonal and what is computed again for the gradient (so that it is a lower bound of what the
    device did, as model-FLOP utilisation wants it), lookups, softmaxes and the optimizer, which are small; and of a nested
    decoder that is a gru or attention each kernel is counted as met once an event.
    """
    heads = sum(_weights(config)) - sum(_weights(config, heads=False))
    return 3 * (prefill_operations(config, batch, events) + 2 * heads * batch * events)


def _weights(config: ModelConfig, heads: bool = True):
    """The weights that an event meets: for each kernel its size, times the tokens that meet it."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameter_shapes(config)):
        name = jax.tree_util.keystr(path)
        is_output = "head_" in name or "decoder" in name or "join" in name
        if "embedding" in name or "lead" in name or (not heads and is_output):
            continue
        # A token meets the key-value kernel of its attribute alone, and one of the A heads.
        once = is_output or "key_value_" in name
        yield leaf.size * (1 if once else config.tokens_per_event)


def last_level_cache(caches: pathlib.Path = CACHES) -> int | None:
    """Bytes of the processor's last cache, which serves what fits into it faster than memory; None where it is not known.

    None on an accelerator, too. caches: the folder in which Linux describes the caches of a core.
    """
    if jax.default_backend() != "cpu":
        return None
    sizes = []
    for index in caches.glob("index*"):
        try:
            size = (index / "size").read_text().strip()
            sizes.append((int((index / "level").read_text()), int(size[:-1]) * UNITS[size[-1]]))
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return max(sizes)[1] if sizes else None


class Probe:
    """The device itself as a subject: how fast it reads memory, and how fast it multiplies."""

    def __init__(self, job: dict):
        self._bandwidth, self._matrices = bandwidth_probe(), matrix_probe(job["dtype"])
        self.about = {"measures": f"the sum of {READ_BYTES >> 20} MiB, and a product of two {side()} x {side()} matrices"}

    def run(self) -> dict:
        return {"bytes_per_second": self._bandwidth(), "operations_per_second": self._matrices()}


def bandwidth_probe() -> Callable[[], float]:
    """A function that measures the memory bandwidth for reading, bytes per second, each time it is called."""
    data = jnp.ones((READ_BYTES // 4 // 1024, 1024), jnp.float32)
    return _rate(READ_BYTES, lambda data: data.sum(axis=1), data)


def matrix_probe(dtype: str) -> Callable[[], float]:
    """A function that measures operations per second in a product of two square matrices, each time it is called."""
    # Of random numbers: a product of ones takes less power, and with that a GPU less time.
    matrix = jax.random.normal(jax.random.key(0), (side(), side()), dtype)
    return _rate(2 * side() ** 3, lambda matrix: matrix @ matrix, matrix)


def side() -> int:
    """Of the square matrices that are multiplied: larger where they would be done too soon."""
    return 2048 if jax.default_backend() == "cpu" else 8192


def _rate(amount: int, function, argument) -> Callable[[], float]:
    function = jax.jit(function)
    repeats = 1

    def measure() -> float:
        nonlocal repeats
        jax.block_until_ready(function(argument))  # compiles; and a process that waited may have lost its pages
        while True:
            began = time.perf_counter()
            for _ in range(repeats):
                result = function(argument)
            jax.block_until_ready(result)
            seconds = time.perf_counter() - began
            if seconds > 0.01:  # a fast device does one in the time that a call takes
                return repeats * amount / seconds
            repeats *= 4

    return measure


if __name__ == "__main__":
    serve(Probe)
