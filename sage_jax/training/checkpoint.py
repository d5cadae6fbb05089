"""Checkpoints: train state, place in the data, config and vocabulary of a run, through orbax.

Each has digests of all that, which are compared when it is read: files can change without a word from the disk.
"""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from sage_jax.errors import UserError
from sage_jax.models.forms import parameter_shapes
from sage_jax.music.representation import Representation, from_dict
from sage_jax.training.config import RunConfig
from sage_jax.training.digest import digests, text_digest
from sage_jax.training.hosts import first_alone, is_first, largest, together
from sage_jax.training.state import TrainState

FOLDER = "checkpoints"
Found = TypeVar("Found")
DAMAGED = "damaged"  # where checkpoints go that can't be read, out of the way of those to come


class Damaged(UserError):
    """A checkpoint that can't be read, or is not what was written."""


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
        self._manager = _open(workdir, preservation_policy=_newest_and_best(config.train.keep))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        try:
            with self._writing():
                self._manager.close()
        except UserError:
            if kind is None:  # else what ended the block is told, not what came of it
                raise

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, place: dict[str, Any], valid_loss: float | None = None) -> None:
        """Saves `state`, whose buffers may be donated as soon as this returns; a step that is there already stays.

        place: where the next batch is in the data, JSON-ready. Raises UserError where this one or the one before can't be
        written; those before that are whole.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        config, vocabulary = self._config.to_dict(), self._representation
        vocabulary = {**vocabulary.to_dict(), "fingerprint": vocabulary.fingerprint}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            place=ocp.args.JsonSave(place),
            config=ocp.args.JsonSave(config),
            vocabulary=ocp.args.JsonSave(vocabulary),
            digests=ocp.args.JsonSave({"state": digests(state), **_text_digests(config, vocabulary, place)}),
        )
        with self._writing():
            self._manager.save(step, args=items, metrics=None if valid_loss is None else {"loss": valid_loss})

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state that is whole, with the shapes and the placement of `like`, and the place that belongs to it.

        All hosts take the same one, the newest that every host can read. Newer ones are reported and put aside. Raises
        UserError where the workdir holds another run, and Damaged where there is no checkpoint that is whole.
        """
        with _reading(self._workdir) as reader:
            step, (state, place) = _newest_whole(reader, lambda step: self._restore(reader, step, like))
        if step < largest(self.latest_step or 0):
            with first_alone():
                newer = [other for other in self._manager.all_steps() if other > step]
                for other in newer if is_first() else ():
                    aside = pathlib.Path(self._workdir) / DAMAGED / f"{other}-{time.time_ns()}"
                    aside.parent.mkdir(exist_ok=True)
                    os.replace(self._manager.directory / str(other), aside)
            self._manager.reload()
        return state, place

    def _restore(self, reader: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        with together(Damaged):
            saved = _read_texts(reader, step)
        for name, (there, here) in self._config.differences(saved.config).items():
            raise UserError(
                f"{self._workdir} holds another run: config.{name} is {there!r} there and {here!r} here; "
                f"choose another --workdir, or set --config.{name} back"
            )
        found = _saved_representation(self._workdir, saved.vocabulary)
        if found.fingerprint != self._representation.fingerprint:
            raise UserError(f"{self._workdir} was trained with other merges than are there now; train in another --workdir")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        with together(Damaged):
            state = _read(reader, step, state=ocp.args.StandardRestore(abstract)).state
        found = digests(state)  # which all hosts compute together
        with together(Damaged):
            _compare(reader, step, found, saved.digests["state"])
        return state, saved.place

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever orbax raises for a disk that is full, or gone, into a line with the way out."""
        try:
            yield
        except Exception as error:
            there = [step for step in self._manager.all_steps() if (self._manager.directory / str(step)).is_dir()]
            last = f"the checkpoint of step {max(there)} is whole" if there else "there is no checkpoint yet"
            raise UserError(
                f"cannot write a checkpoint to {self._manager.directory} ({_reason(error)}); {last}: make room, and the same "
                "command goes on from there"
            ) from error


def load_for_sampling(workdir: str | os.PathLike, best: bool = False) -> tuple[Any, RunConfig, int, Representation]:
    """(params, config, step, representation) of the newest checkpoint in `workdir`, or of the best by validation loss.

    A newest one that is damaged is told, and the one before it taken. Raises UserError where there is none, or where none can
    be read or it was written for another vocabulary.
    """

    def load(step: int) -> tuple[Any, RunConfig, Representation]:
        saved = _read_texts(manager, step)
        representation = _saved_representation(workdir, saved.vocabulary)
        config = RunConfig.from_dict(saved.config)
        abstract = {"params": parameter_shapes(config.model)}
        as_arrays = ocp.checkpoint_utils.construct_restore_args(abstract)
        only_params = ocp.args.PyTreeRestore(abstract, restore_args=as_arrays, partial_restore=True)
        params = jax.device_put(_read(manager, step, state=only_params).state["params"])
        _compare(manager, step, digests({"params": params}), saved.digests["state"])
        return params, config, representation

    with _reading(workdir) as manager:
        if manager.latest_step() is None:
            raise UserError(f"no checkpoint in {workdir}; train first: python -m launch.train --workdir={workdir}")
        step = manager.best_step() if best else None
        if step is None:
            step, (params, config, representation) = _newest_whole(manager, load)
        else:
            params, config, representation = load(step)
    return params, config, step, representation


def _newest_whole(manager: ocp.CheckpointManager, read: Callable[[int], Found]) -> tuple[int, Found]:
    """(step, what `read` has of it) of the newest checkpoint that is whole; newer ones are reported.

    read: raises Damaged, on all hosts or on none. Raises Damaged, for the newest checkpoint, where none is whole.
    """
    left, damaged = manager.all_steps(), []
    while step := largest(max(left, default=0)):  # the newest that any host sees
        try:
            found = read(step)
        except Damaged as error:
            damaged.append(error)
            left = [other for other in left if other < step]
            continue
        for error in damaged if is_first() else ():
            print(f"{error}; going back to step {step}", file=sys.stderr)
        return step, found
    raise Damaged(f"{damaged[0]}; there is no other one that is whole: train in another --workdir") from damaged[0]


def _read_texts(manager: ocp.CheckpointManager, step: int) -> ocp.args.Composite:
    """All of a checkpoint but the state. Raises Damaged."""
    names = ("config", "vocabulary", "place", "digests")
    saved = _read(manager, step, **{name: ocp.args.JsonRestore() for name in names})
    _compare(manager, step, _text_digests(saved.config, saved.vocabulary, saved.place), saved.digests)
    return saved


def _text_digests(config: dict[str, Any], vocabulary: dict[str, Any], place: dict[str, Any]) -> dict[str, int]:
    return {name: text_digest(text) for name, text in (("config", config), ("vocabulary", vocabulary), ("place", place))}


def _compare(manager: ocp.CheckpointManager, step: int, found: dict[str, int], written: dict[str, Any]) -> None:
    """Raises Damaged where what is `found` by digest is not what was `written`."""
    for name, digest in found.items():
        if written.get(name) != digest:
            raise Damaged(f"cannot use the checkpoint {manager.directory / str(step)}: {name} is not what was written")


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


def _reading(workdir: str | os.PathLike) -> contextlib.closing[ocp.CheckpointManager]:
    """A manager for this host's reads alone: one for all hosts waits at each read until the others have read, too."""
    host = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=host, active_processes={host})
    return contextlib.closing(_open(workdir, create=False, multiprocessing_options=alone))


def _read(manager: ocp.CheckpointManager, step: int, **items: ocp.args.CheckpointArgs) -> ocp.args.Composite:
    """The `items` of a checkpoint. Raises Damaged, whatever orbax raises for one."""
    try:
        return manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
        raise Damaged(f"cannot read the checkpoint {manager.directory / str(step)} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
