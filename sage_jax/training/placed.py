"""What the training loop asks of a way to spread a run over devices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from sage_jax.errors import UserError
from sage_jax.training.config import RunConfig
from sage_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Programs:
    """The jitted functions of a run, and what goes in and out of them.

    init(seed) -> state. update(state, batch) -> state, metrics. score(params, batch) -> Totals.
    place(batch): a batch of numpy arrays as the programs take it. whole(state): as checkpoints have it, the same however a run
    is spread; spread(state): as the programs have it. remarks: what a user may want to know of the placement.
    """

    init: Callable[[int], TrainState]
    update: Any
    score: Any
    place: Callable[[dict[str, Any]], dict[str, jax.Array]]
    whole: Callable[[TrainState], TrainState] = lambda state: state
    spread: Callable[[TrainState], TrainState] = lambda state: state
    remarks: tuple[str, ...] = ()


def check_rows(run: RunConfig, shares: int) -> None:
    """Raises UserError unless the rows of each micro-batch are as many in each of `shares` shares."""
    accumulate = run.train.accumulate
    if run.train.batch_size % (accumulate * shares):
        micro = f" in each of {accumulate} micro-batches" if accumulate > 1 else ""
        raise UserError(
            f"config.train.batch_size is {run.train.batch_size}, but its rows go to {shares} devices{micro}; "
            f"give a multiple of {accumulate * shares}"
        )
