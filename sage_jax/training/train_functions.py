"""Builds the jitted functions of a run: init_state, train_step and eval_step under its partitioner."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sage_jax.config import RunConfig
from sage_jax.models import flash_attention
from sage_jax.models.registry import build_model
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.training import pmap, sharding
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.placement import TrainFunctions
from sage_jax.training.state import init_state
from sage_jax.training.step import TokenAccounting, eval_step, train_step

PARTITIONERS: Mapping[str, Callable[..., TrainFunctions]] = {"mesh": sharding.mesh_partitioner, "pmap": pmap.pmap_partitioner}


def make_train_functions(run: RunConfig, representation: Tokenizer, devices: Sequence[Any] | None = None) -> TrainFunctions:
    """The jitted functions of `run` for `devices`, by default all that jax has.

    Raises UserError if its batches, its mesh or its attention don't fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    model = build_model(flash_attention.resolve(run.model, devices[0]))
    tx = make_optimizer(run.optimizer, run.train.steps)
    accounting = TokenAccounting.of(representation)
    return PARTITIONERS[run.partitioner](
        run,
        devices,
        init=functools.partial(init_state, model=model, tx=tx, averaged=run.train.ema_decay > 0),
        train_step=functools.partial(
            train_step,
            model=model,
            tx=tx,
            grad_accum_steps=run.train.grad_accum_steps,
            accounting=accounting,
            skip_bad=run.train.on_bad_step == "skip",
            loss_spike_factor=run.train.loss_spike_factor,
            packed=run.data.pack,
            dropout_seed=run.train.seed if run.model.drops else None,
            ema_decay=run.train.ema_decay,
        ),
        eval_step=functools.partial(eval_step, model=model, accounting=accounting),
    )


def empty_batch(run: RunConfig) -> dict[str, np.ndarray]:
    """A batch of zeros with this host's shapes, for ahead-of-time compilation."""
    rows = run.train.batch_size // jax.process_count()
    return {name: np.zeros((rows, *array.shape[1:]), array.dtype) for name, array in abstract_batch(run).items()}


def abstract_batch(run: RunConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of all hosts."""
    shape = (run.train.batch_size, run.context + 1, run.model.num_attributes)
    batch = {"events": jax.ShapeDtypeStruct(shape, np.int32)}
    return batch | {"floors": jax.ShapeDtypeStruct(shape[:2], np.int32)} if run.model.roles else batch
