"""The folder of a run that has learned nothing, for tests that need a checkpoint and no training."""

import functools
import pathlib

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sage_jax.config import RunConfig
from sage_jax.models.registry import build_model
from sage_jax.training.checkpoint import Checkpoints
from sage_jax.training.loop import load_tokenizer
from sage_jax.training.optimizer import make_optimizer
from sage_jax.training.run_manifest import record_start
from sage_jax.training.state import init_state


def save_untrained(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Writes what sage_jax.train leaves in `workdir` for programs that load the model, as if after one step."""
    sections = config.to_dict()
    run = RunConfig.from_dict(sections)
    representation = load_tokenizer(run, pathlib.Path(run.data.shards or workdir / "data"), workdir)
    tx = make_optimizer(run.optimizer, run.train.steps)
    init = functools.partial(init_state, model=build_model(run.model), tx=tx, averaged=run.train.ema_decay > 0)
    with Checkpoints(workdir, run, representation) as checkpoints:
        checkpoints.save(jax.jit(init)(run.train.seed).replace(step=jnp.int32(1)), {})
    record_start(workdir, {**sections, **run.to_dict()}, 0)
