"""The interface between the training loop and the partitioners (sharding.py and pmap.py)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class TrainFunctions:
    """The jitted functions of a run, and conversions between host data and their arguments.

    init(seed) -> state. train_step(state, batch) -> (state, metrics); donates `state`. eval_step(params, batch) -> LossSums.
    shard_batch(batch): puts a batch of numpy arrays on the devices. unshard_state(state): the canonical layout for checkpoints,
    the same for every partitioner. shard_state: its inverse. remarks: lines about the placement, for the user.
    abstract_state: the state as ShapeDtypeStructs with their shardings; None under pmap.
    """

    init: Callable[[int], TrainState]
    train_step: Any
    eval_step: Any
    shard_batch: Callable[[dict[str, Any]], dict[str, jax.Array]]
    unshard_state: Callable[[TrainState], TrainState] = lambda state: state
    shard_state: Callable[[TrainState], TrainState] = lambda state: state
    remarks: tuple[str, ...] = ()
    abstract_state: Any = None


def check_batch_size(run: RunConfig, num_shards: int) -> None:
    """Raises UserError unless the rows of each micro-batch divide evenly into `num_shards`."""
    micro_batches = run.train.grad_accum_steps
    if run.train.batch_size % (micro_batches * num_shards):
        each = f" in each of {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise UserError(
            f"config.train.batch_size is {run.train.batch_size}, but its rows go to {num_shards} devices{each}; "
            f"give a multiple of {micro_batches * num_shards}"
        )
