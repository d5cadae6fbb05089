"""The roofline of a decode step: bytes to move, operations to do, and a probe of the device's rates."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sage_jax.benchmark.worker import serve
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.registry import abstract_params

READ_BYTES = 512 << 20  # far more than a processor's caches hold
CACHE_FOLDER = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def event_step_cost(config: ModelConfig, batch: int, context_events: int) -> tuple[int, int]:
    """(bytes, operations) of drawing one event per row after a full context.

    Bytes: the weights that each backbone step uses (one step per token, or one per event), the keys and values of the whole
    context read at each step, the new ones written, and the weights that are used once per event. Operations: two per weight
    and row; four per key, query head and channel of a head. Embedding rows and activations are small and left out.
    """
    T, H, h = config.tokens_per_event, config.num_heads, config.head_dim
    weights = _weights(config)
    itemsize = jnp.dtype(config.dtype).itemsize
    cache = jax.eval_shape(lambda: Cache.empty(config, batch, context_events)).num_bytes
    new = jax.eval_shape(lambda: Cache.empty(config, batch, 1)).num_bytes
    own = config.num_own_scope_heads
    keys = context_events * (own + (H - own) * config.keys_per_event)
    return weights * itemsize + T * cache + new, batch * (2 * weights + T * config.num_layers * 4 * keys * h)


def prefill_operations(config: ModelConfig, batch: int, events: int) -> int:
    """Operations of a prefill of `events` events: all weights except the output heads, and causal attention."""
    T, h = config.tokens_per_event, config.head_dim
    weights = _weights(config, heads=False)
    own = config.num_own_scope_heads
    # Causal attention has half of all pairs of tokens: 2 operations per pair instead of 4.
    pairs = (own + (config.num_heads - own) * config.keys_per_event) * events**2 * T
    return batch * (2 * weights * events + config.num_layers * 2 * pairs * h)


def training_operations(config: ModelConfig, batch: int, events: int) -> int:
    """Operations of a train step: a forward pass, and twice as many for the gradient.

    Two per weight and token that uses it; four per pair of tokens that may attend, query head and channel. Causal attention has
    half of all pairs; the own-scope heads of as_kvhs attend within one attribute. Not counted: masked pairs and
    rematerialization (model-FLOP utilization excludes them), lookups, softmax and the optimizer, which are small. The kernels
    of a gru or attention event decoder count once per event.
    """
    heads = _weights(config) - _weights(config, heads=False)
    return 3 * (prefill_operations(config, batch, events) + 2 * heads * batch * events)


@functools.cache
def _weights(config: ModelConfig, heads: bool = True) -> int:
    """The sum over the kernels that an event uses: the size of each, times the number of the event's tokens that use it."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(config)):
        name = jax.tree_util.keystr(path)
        is_output = "head_" in name or "decoder" in name or "join" in name
        if "embedding" in name or "lead" in name or (not heads and is_output):
            continue
        # A token uses only its own attribute's key-value kernel and one of the A output heads.
        once = is_output or "key_value_" in name
        total += leaf.size * (1 if once else config.tokens_per_event)
    return total


def last_level_cache(folder: pathlib.Path = CACHE_FOLDER) -> int | None:
    """Bytes of the processor's last-level cache; None if unknown, and on an accelerator.

    folder: where Linux describes the caches of a core.
    """
    if jax.default_backend() != "cpu":
        return None
    sizes = []
    for index in folder.glob("index*"):
        try:
            size = (index / "size").read_text().strip()
            sizes.append((int((index / "level").read_text()), int(size[:-1]) * UNITS[size[-1]]))
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return max(sizes)[1] if sizes else None


class DeviceProbe:
    """The device itself as a system: its memory bandwidth and its rate of matrix products."""

    def __init__(self, job: dict[str, Any]):
        self._bandwidth, self._matrices = bandwidth_probe(), matrix_probe(job["dtype"])
        size = matrix_size()
        self.metadata = {"measures": f"the sum of {READ_BYTES >> 20} MiB, and a product of two {size} x {size} matrices"}

    def run(self) -> dict[str, Any]:
        return {"bytes_per_second": self._bandwidth(), "operations_per_second": self._matrices()}


def bandwidth_probe() -> Callable[[], float]:
    """A function that measures the read bandwidth of memory in bytes per second."""
    data = jnp.ones((READ_BYTES // 4 // 1024, 1024), jnp.float32)
    return _rate(READ_BYTES, lambda data: data.sum(axis=1), data)


def matrix_probe(dtype: str) -> Callable[[], float]:
    """A function that measures operations per second of a product of two square matrices."""
    size = matrix_size()
    # Random numbers: a product of ones takes less power, which makes a GPU faster.
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    return _rate(2 * size**3, lambda matrix: matrix @ matrix, matrix)


def matrix_size() -> int:
    """The side of the square matrices: larger on an accelerator, which would finish too soon."""
    return 2048 if jax.default_backend() == "cpu" else 8192


def _rate(amount: int, function: Callable[[jax.Array], jax.Array], argument: jax.Array) -> Callable[[], float]:
    """A function that measures `amount` per second of one call."""
    function = jax.jit(function)
    repeats = 1

    def measure() -> float:
        nonlocal repeats
        result = jax.block_until_ready(function(argument))  # compiles, and brings back pages that an idle process lost
        while True:
            start = time.perf_counter()
            for _ in range(repeats):
                result = function(argument)
            jax.block_until_ready(result)
            seconds = time.perf_counter() - start
            if seconds > 0.01:  # long enough that the overhead of a call does not matter
                return repeats * amount / seconds
            repeats *= 4

    return measure


if __name__ == "__main__":
    serve(DeviceProbe)
