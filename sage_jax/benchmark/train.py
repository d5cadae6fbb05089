"""Our train step as a system of the benchmark: one model, crops of one length, with and without the data loader.

A step is sage_jax.training.step.train_step: loss, gradient, clipping, AdamW and metrics, with a donated state. It takes one
full batch of random notes without padding. The loader reads random crops of a corpus.
"""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sage_jax.benchmark.config import FIRST_NOTE_IDS
from sage_jax.benchmark.memory import peak_megabytes
from sage_jax.benchmark.worker import serve
from sage_jax.config import RunConfig
from sage_jax.defaults import default_config
from sage_jax.environment import describe
from sage_jax.tokenizers.note_events import BOS
from sage_jax.training.loop import datasets
from sage_jax.training.step import Batch
from sage_jax.training.train_functions import empty_batch, make_train_functions

PREFETCHED_BATCHES = 8  # batches that the loader may hold ready; read first, not timed
TIMED_BATCHES = 32


class Trainer:
    """Takes `steps` steps per run on all devices, with the rows of a batch split among them.

    job: model (fields of ModelConfig), dtype, batch (rows), events (per crop), steps, seed, shards (folder of token shards).
    """

    def __init__(self, job: dict[str, Any]):
        run = configure(job)
        functions = make_train_functions(run, run.tokenizer)
        self._steps, self._shard_batch = job["steps"], functions.shard_batch
        self._state, self._batch = functions.init(run.train.seed), functions.shard_batch(full_batch(run))
        start = time.perf_counter()
        self._train_step = functions.train_step.lower(self._state, self._batch).compile()
        compile_seconds = time.perf_counter() - start
        self._state, metrics = jax.block_until_ready(self._train_step(self._state, self._batch))
        memory = self._train_step.memory_analysis()
        train_data, _ = datasets(run, pathlib.Path(job["shards"]), run.tokenizer)
        self._batches = iter(train_data)
        self.metadata = {
            "measures": (
                "train steps one by one on one full batch, waiting for each; then a loop of steps that reads metrics one step "
                "late, as training does; the same loop with batches from the loader; and the loader alone"
            ),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._state.params)),
            "devices": jax.device_count(),
            "tokens": int(metrics["tokens"]),
            "notes": int(metrics["notes"]),
            "compile_seconds": compile_seconds,
            # XLA's plan for one step: arguments (the state) and temporary buffers. Donated results reuse the arguments.
            "planned_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """seconds: of each step alone. read_seconds: per batch of the loader. loop_seconds, loaded_loop_seconds: per step in a
        loop, with one batch and with the loader's batches.
        """
        seconds = []
        for _ in range(self._steps):
            start = time.perf_counter()
            self._state, _ = jax.block_until_ready(self._train_step(self._state, self._batch))
            seconds.append(time.perf_counter() - start)
        loop_seconds = self._loop(lambda: self._batch)
        for _ in range(PREFETCHED_BATCHES):
            next(self._batches)
        start = time.perf_counter()
        for _ in range(TIMED_BATCHES):
            next(self._batches)
        read_seconds = (time.perf_counter() - start) / TIMED_BATCHES
        return {
            "seconds": seconds,
            "loop_seconds": loop_seconds,
            "read_seconds": read_seconds,
            "loaded_loop_seconds": self._loop(lambda: self._shard_batch(next(self._batches))),
            "peak_megabytes": peak_megabytes(),
        }

    def _loop(self, next_batch: Callable[[], Batch]) -> float:
        """Seconds per step of a training loop in which the device never waits for the host to read metrics."""
        pending, start = None, time.perf_counter()
        for _ in range(self._steps):
            self._state, metrics = self._train_step(self._state, next_batch())
            jax.device_get(pending)
            pending = metrics
        jax.block_until_ready((self._state, pending))
        return (time.perf_counter() - start) / self._steps


def configure(job: dict[str, Any], **mesh: int) -> RunConfig:
    """The run of configs/sage.py:base with the job's model and batches, on all devices unless `mesh` sizes its axes."""
    config = default_config("base")
    config["model"].update({**job["model"], "dtype": job["dtype"]})
    config["train"].update(batch_size=job["batch"], seed=job["seed"])
    config["data"].update(context_events=job["events"])
    config["mesh"].update(mesh)
    return RunConfig.from_dict(config)


def full_batch(run: RunConfig) -> dict[str, np.ndarray]:
    """A batch of random notes after BOS: events, int32 [B, N + 1, A]."""
    shape = empty_batch(run)["events"].shape
    events = np.random.default_rng(run.train.seed).integers(FIRST_NOTE_IDS, run.model.vocab_sizes, shape, np.int32)
    events[:, 0] = BOS
    return {"events": events}


if __name__ == "__main__":
    serve(Trainer)
