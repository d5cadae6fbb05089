"""Checkpoints: train state, place in the data, config and vocabulary of a run, through orbax."""

import contextlib
import gc
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from sage_jax.errors import UserError
from sage_jax.models.forms import make_model
from sage_jax.music.representation import Representation, from_dict
from sage_jax.training.config import RunConfig
from sage_jax.training.state import TrainState

FOLDER = "checkpoints"

# orbax tells of every save through absl's logger; only its errors are for a user.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno >= logging.ERROR)


class Checkpoints:
    """The checkpoints of the run `config` in `workdir`; writes while training goes on, until it is closed.

    representation: what the run tells pieces in, if not NoteEvents.

    The newest `train.keep` stay, and the one with the lowest validation loss. A checkpoint is there whole or not at all.
    Raises UserError where the workdir can't be written.
    """

    def __init__(self, workdir: str | os.PathLike, config: RunConfig, representation: Representation | None = None):
        self._config = config
        self._representation = representation or config.tokenizer
        self._workdir = workdir
        self._manager = _open(workdir, create=True, preservation_policy=_newest_and_best(config.train.keep))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, place: dict[str, Any], valid_loss: float | None = None) -> None:
        """Saves `state`, whose buffers may be donated as soon as this returns; a step that is there already stays.

        place: where the next batch is in the data, JSON-ready.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        vocabulary = self._representation
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            place=ocp.args.JsonSave(place),
            config=ocp.args.JsonSave(self._config.to_dict()),
            vocabulary=ocp.args.JsonSave({**vocabulary.to_dict(), "fingerprint": vocabulary.fingerprint}),
        )
        self._manager.save(step, args=items, metrics=None if valid_loss is None else {"loss": valid_loss})

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state, with the shapes and the placement of `like`, and the place that belongs to it.

        Raises UserError where the workdir holds another run, or where the checkpoint can't be read.
        """
        step = self.latest_step
        saved = _read(self._manager, step, config=ocp.args.JsonRestore(), vocabulary=ocp.args.JsonRestore())
        for name, (there, here) in self._config.differences(saved.config).items():
            raise UserError(
                f"{self._workdir} holds another run: config.{name} is {there!r} there and {here!r} here; "
                f"choose another --workdir, or set --config.{name} back"
            )
        found = _saved_representation(self._workdir, saved.vocabulary)
        if found.fingerprint != self._representation.fingerprint:
            raise UserError(f"{self._workdir} was trained with other merges than are there now; train in another --workdir")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        saved = _read(self._manager, step, state=ocp.args.StandardRestore(abstract), place=ocp.args.JsonRestore())
        return saved.state, saved.place


def load_for_sampling(workdir: str | os.PathLike, best: bool = False) -> tuple[Any, RunConfig, int, Representation]:
    """(params, config, step, representation) of the newest checkpoint in `workdir`, or of the best by validation loss.

    Raises UserError where there is none, or where it can't be read or was written for another vocabulary.
    """
    with contextlib.closing(_open(workdir, create=False)) as manager:
        step = manager.best_step() if best else None
        step = manager.latest_step() if step is None else step
        if step is None:
            raise UserError(f"no checkpoint in {workdir}; train first: python -m launch.train --workdir={workdir}")
        saved = _read(manager, step, config=ocp.args.JsonRestore(), vocabulary=ocp.args.JsonRestore())
        representation = _saved_representation(workdir, saved.vocabulary)
        config = RunConfig.from_dict(saved.config)
        events = jax.ShapeDtypeStruct((1, 2, config.model.num_attributes), jnp.int32)
        abstract = {"params": jax.eval_shape(make_model(config.model).init, jax.random.key(0), events)["params"]}
        as_arrays = ocp.checkpoint_utils.construct_restore_args(abstract)
        only_params = ocp.args.PyTreeRestore(abstract, restore_args=as_arrays, partial_restore=True)
        params = _read(manager, step, state=only_params).state["params"]
    return jax.device_put(params), config, step, representation


def _saved_representation(workdir: str | os.PathLike, saved: dict[str, Any]) -> Representation:
    """What the model was trained on. Raises UserError unless the saved ids still mean what they meant."""
    fingerprint = saved.pop("fingerprint")
    representation = from_dict(saved)
    if representation.fingerprint != fingerprint:
        raise UserError(
            f"{workdir} was trained with another vocabulary than this version of sage_jax has; "
            "train again in another --workdir, or use the version that trained it"
        )
    return representation


def _validation_loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def _newest_and_best(keep: int) -> checkpoint_managers.PreservationPolicy:
    best = checkpoint_managers.BestN(
        get_metric_fn=_validation_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
    )
    return checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), best])


def _open(workdir: str | os.PathLike, **options: Any) -> ocp.CheckpointManager:
    folder = pathlib.Path(workdir).absolute() / FOLDER
    options = ocp.CheckpointManagerOptions(best_fn=_validation_loss, best_mode="min", **options)
    try:
        return ocp.CheckpointManager(folder, options=options)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another --workdir") from error


def _read(manager: ocp.CheckpointManager, step: int, **items: ocp.args.CheckpointArgs) -> ocp.args.Composite:
    """The `items` of a checkpoint. Raises UserError with the way out, whatever orbax raises for a damaged one."""
    with _leftovers_unheard():
        try:
            return manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        time.sleep(0.2)  # for the reads that are still under way
    earlier = [other for other in manager.all_steps() if other < step]
    way_out = f"move that folder away to go back to step {max(earlier)}" if earlier else "train in another --workdir"
    raise UserError(f"cannot read the checkpoint {manager.directory / str(step)} ({reason}); {way_out}")


@contextlib.contextmanager
def _leftovers_unheard() -> Iterator[None]:
    """Where one of orbax's reads fails, the others complain when they are collected: here, and to nobody."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    logger = logging.getLogger("asyncio")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook, logger.disabled = hook, disabled
