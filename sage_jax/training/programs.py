"""The programs of a run: the pure functions of state.py and step.py, placed on its devices in the way that it chose."""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np

from sage_jax.models.forms import make_model
from sage_jax.music.representation import Representation
from sage_jax.training import pmap, sharding
from sage_jax.training.config import RunConfig
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.placed import Programs
from sage_jax.training.state import init_state
from sage_jax.training.step import Counting, eval_step, train_step

PLACED: Mapping[str, Callable[..., Programs]] = {"mesh": sharding.over_mesh, "pmap": pmap.over_devices}


def make_programs(run: RunConfig, representation: Representation) -> Programs:
    """The programs of `run`. Raises UserError where its batches or its mesh don't fit the devices."""
    model = make_model(run.model)
    tx = make_optimizer(run.optimizer, run.train.steps)
    counting = Counting.of(representation)
    return PLACED[run.parallel](
        run,
        init=functools.partial(init_state, model=model, tx=tx),
        update=functools.partial(
            train_step,
            model=model,
            tx=tx,
            accumulate=run.train.accumulate,
            counting=counting,
            skip_bad=run.train.bad_steps == "skip",
            spike=run.train.spike,
            packed=run.data.pack,
        ),
        score=functools.partial(eval_step, model=model, counting=counting),
    )


def empty_batch(run: RunConfig) -> dict[str, np.ndarray]:
    """What this host reads of a batch, for compilation ahead of time."""
    rows = run.train.batch_size // jax.process_count()
    return {"events": np.zeros((rows, run.context + 1, run.model.num_attributes), np.int32)}
