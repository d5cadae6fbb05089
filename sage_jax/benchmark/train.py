"""Our own train step as a subject of the benchmark: one model, crops of one length, and what it costs to read them.

A step is all of sage_jax.training.step.train_step: loss, gradient, clipping, AdamW, metrics; its state is donated. The batch
that is stepped on is full: it holds random notes and no padding. Those that are read are random crops of a corpus.
"""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from configs.sage import get_config
from sage_jax.benchmark.config import NOTE
from sage_jax.benchmark.memory import peak_megabytes
from sage_jax.benchmark.worker import serve
from sage_jax.environment import describe
from sage_jax.music.events import BOS
from sage_jax.training.config import RunConfig
from sage_jax.training.loop import datasets
from sage_jax.training.programs import empty_batch, make_programs
from sage_jax.training.step import Batch

AHEAD = 8  # batches that may be ready before they are wanted, and are not timed
READ = 32  # batches read in a row, and timed


class Trainer:
    """Takes `steps` steps in a run, on all devices, the rows of a batch shared out among them.

    job: model (fields of ModelConfig), dtype, batch (rows), events (of a crop), steps, seed, and shards, a folder of them.
    """

    def __init__(self, job: dict[str, Any]):
        run = configure(job)
        programs = make_programs(run, run.tokenizer)
        self._steps, self._place = job["steps"], programs.place
        self._state, self._batch = programs.init(run.train.seed), programs.place(full_batch(run))
        began = time.perf_counter()
        self._update = programs.update.lower(self._state, self._batch).compile()
        compile_seconds = time.perf_counter() - began
        self._state, metrics = jax.block_until_ready(self._update(self._state, self._batch))
        memory = self._update.memory_analysis()
        train_data, _ = datasets(run, pathlib.Path(job["shards"]), run.tokenizer)
        self._batches = iter(train_data)
        self.about = {
            "measures": (
                "train steps one by one on one full batch, the host waiting for each; as many in a loop that reads their "
                "metrics a step late, as training does; the same loop with batches from the loader; and the loader alone"
            ),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._state.params)),
            "devices": jax.device_count(),
            "tokens": int(metrics["tokens"]),
            "notes": int(metrics["notes"]),
            "compile_seconds": compile_seconds,
            # What XLA plans for one step: arguments (the state), results that do not reuse them, and everything between.
            "planned_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """seconds of each step alone; read_seconds for a batch; loop_seconds and loaded_loop_seconds for a step in a loop."""
        seconds = []
        for _ in range(self._steps):
            began = time.perf_counter()
            self._state, _ = jax.block_until_ready(self._update(self._state, self._batch))
            seconds.append(time.perf_counter() - began)
        loop_seconds = self._loop(lambda: self._batch)
        for _ in range(AHEAD):
            next(self._batches)
        began = time.perf_counter()
        for _ in range(READ):
            next(self._batches)
        read_seconds = (time.perf_counter() - began) / READ
        return {
            "seconds": seconds,
            "loop_seconds": loop_seconds,
            "read_seconds": read_seconds,
            "loaded_loop_seconds": self._loop(lambda: self._place(next(self._batches))),
            "peak_megabytes": peak_megabytes(),
        }

    def _loop(self, next_batch: Callable[[], Batch]) -> float:
        """Seconds for a step of the training loop, in which the device never waits for the host to have read the metrics."""
        pending, began = None, time.perf_counter()
        for _ in range(self._steps):
            self._state, metrics = self._update(self._state, next_batch())
            jax.device_get(pending)
            pending = metrics
        jax.block_until_ready((self._state, pending))
        return (time.perf_counter() - began) / self._steps


def configure(job: dict[str, Any], **mesh: int) -> RunConfig:
    """The run of configs/sage.py:base with the job's model and batches; on all devices if no `mesh` says otherwise."""
    config = get_config("base")
    config.model.update({**job["model"], "dtype": job["dtype"]})
    config.train.update(batch_size=job["batch"], seed=job["seed"])
    config.data.num_events = job["events"]
    config.mesh.update(mesh)
    return RunConfig.from_dict(config.to_dict())


def full_batch(run: RunConfig) -> dict[str, np.ndarray]:
    """A batch of random notes."""
    shape = empty_batch(run)["events"].shape
    events = np.random.default_rng(run.train.seed).integers(NOTE, run.model.vocab_sizes, shape, np.int32)
    events[:, 0] = BOS
    return {"events": events}


if __name__ == "__main__":
    serve(Trainer)
