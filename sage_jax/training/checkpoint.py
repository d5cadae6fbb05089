"""Checkpoints of a run through orbax: train state, position in the data, config and vocabulary.

Each holds checksums of these, which are compared on reading to detect silently damaged files.
"""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.registry import abstract_params
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.config import as_saved
from sage_jax.training.checksums import checksums, text_checksum
from sage_jax.training.hosts import is_primary, max_over_hosts, primary_first, raise_together
from sage_jax.training.state import TrainState

FOLDER = "checkpoints"
DAMAGED = "damaged"  # folder to which unreadable checkpoints are moved
Loaded = TypeVar("Loaded")


class Damaged(UserError):
    """A checkpoint can't be read, or differs from what was written."""


class Checkpoints:
    """The checkpoints of the run `config` in `workdir`, written in the background until this is closed.

    representation: how the run encodes pieces; by default config.tokenizer.

    Keeps the newest `train.max_to_keep` checkpoints and the one with the lowest validation loss. Writes are atomic.
    Raises UserError if the workdir can't be written.
    """

    def __init__(self, workdir: str | os.PathLike, config: RunConfig, representation: Tokenizer | None = None):
        self._config = config
        self._representation = representation or config.tokenizer
        self._workdir = workdir
        self._manager = _open(workdir, preservation_policy=_newest_and_best(config.train.max_to_keep))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        try:
            with self._writing():
                self._manager.close()
        except UserError:
            if kind is None:  # otherwise the exception that ended the block is raised
                raise

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: TrainState, position: dict[str, Any], valid_loss: float | None = None) -> None:
        """Saves `state`, unless its step is saved already. The buffers of `state` may be donated once this returns.

        position: of the next batch in the data, JSON-ready. Raises UserError if this checkpoint or the previous one can't be
        written; older ones stay complete.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        config = self._config.to_dict()
        vocabulary = {**self._representation.to_dict(), "fingerprint": self._representation.fingerprint}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state.to_tree()),
            place=ocp.args.JsonSave(position),
            config=ocp.args.JsonSave(config),
            vocabulary=ocp.args.JsonSave(vocabulary),
            checksums=ocp.args.JsonSave({"state": checksums(state), **_text_checksums(config, vocabulary, position)}),
        )
        with self._writing():
            self._manager.save(step, args=items, metrics=None if valid_loss is None else {"loss": valid_loss})

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest intact state, with the shapes and shardings of `like`, and its position in the data.

        All hosts restore the newest checkpoint that every host can read. Newer ones are reported and moved to `damaged`.
        Raises UserError if the workdir holds another run, and Damaged if no checkpoint is intact.
        """
        with _reading(self._workdir) as reader:
            step, (state, position) = _newest_intact(reader, lambda step: self._restore(reader, step, like))
        if step < max_over_hosts(self.latest_step or 0):
            with primary_first():
                newer = [other for other in self._manager.all_steps() if other > step]
                for other in newer if is_primary() else ():
                    target = pathlib.Path(self._workdir) / DAMAGED / f"{other}-{time.time_ns()}"
                    target.parent.mkdir(exist_ok=True)
                    os.replace(self._manager.directory / str(other), target)
            self._manager.reload()
        return state, position

    def _restore(self, reader: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        with raise_together(Damaged):
            saved = _read_texts(reader, step)
        for name, (there, here) in self._config.differences(saved.config).items():
            raise UserError(
                f"{self._workdir} holds another run: config.{name} is {there!r} there and {here!r} here; "
                f"choose another --workdir, or set --config.{name} back"
            )
        representation = as_saved(saved.vocabulary, self._workdir)
        if representation.fingerprint != self._representation.fingerprint:
            raise UserError(
                f"{self._workdir} was trained with other merges than its tokenizer has now; train in another --workdir"
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        with raise_together(Damaged):
            tree = _read(reader, step, state=ocp.args.StandardRestore(abstract.to_tree())).state
        state = TrainState(**tree)
        computed = checksums(state)  # a collective: every host takes part
        with raise_together(Damaged):
            _compare(reader, step, computed, saved.checksums["state"])
        return state, saved.place

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Converts any exception that orbax raises for a full or missing disk to a UserError."""
        try:
            yield
        except Exception as error:
            complete = [step for step in self._manager.all_steps() if (self._manager.directory / str(step)).is_dir()]
            last = f"the checkpoint of step {max(complete)} is complete" if complete else "there is no checkpoint yet"
            raise UserError(
                f"cannot write a checkpoint to {self._manager.directory} ({_reason(error)}); {last}: free some space "
                "and run the same command again"
            ) from error


def load_for_sampling(workdir: str | os.PathLike, best: bool = False) -> tuple[Any, RunConfig, int, Tokenizer]:
    """(params, config, step, representation) of the newest intact checkpoint in `workdir`, or of the best by validation loss.

    params: the average of a run that has one (train.ema_decay), as its validation losses are.
    Newer checkpoints that are damaged are reported. Raises UserError if there is no checkpoint, none is intact, or the
    vocabulary has changed since. With `best` a damaged best checkpoint raises Damaged.
    """

    def load(step: int) -> tuple[Any, RunConfig, Tokenizer]:
        saved = _read_texts(manager, step)
        representation = as_saved(saved.vocabulary, workdir)
        config = RunConfig.from_dict(saved.config)
        name = "ema" if config.train.ema_decay else "params"
        abstract = {name: abstract_params(config.model)}
        as_arrays = ocp.checkpoint_utils.construct_restore_args(abstract)
        only_params = ocp.args.PyTreeRestore(abstract, restore_args=as_arrays, partial_restore=True)
        params = jax.device_put(_read(manager, step, state=only_params).state[name])
        _compare(manager, step, checksums({name: params}), saved.checksums["state"])
        return params, config, representation

    with _reading(workdir) as manager:
        if manager.latest_step() is None:
            raise UserError(f"no checkpoint in {workdir}; train first: python -m launch.train --workdir={workdir}")
        step = manager.best_step() if best else None
        if step is None:
            step, (params, config, representation) = _newest_intact(manager, load)
        else:
            params, config, representation = load(step)
    return params, config, step, representation


def _newest_intact(manager: ocp.CheckpointManager, load: Callable[[int], Loaded]) -> tuple[int, Loaded]:
    """(step, load(step)) of the newest intact checkpoint; newer ones are reported.

    load: raises Damaged on all hosts or on none. Raises Damaged, naming the newest checkpoint, if none is intact.
    """
    candidates, damaged = manager.all_steps(), []
    while step := max_over_hosts(max(candidates, default=0)):  # the newest that any host sees
        try:
            loaded = load(step)
        except Damaged as error:
            damaged.append(error)
            candidates = [other for other in candidates if other < step]
            continue
        for error in damaged if is_primary() else ():
            print(f"{error}; going back to step {step}", file=sys.stderr)
        return step, loaded
    raise Damaged(f"{damaged[0]}; no other checkpoint is intact: train in another --workdir") from damaged[0]


def _read_texts(manager: ocp.CheckpointManager, step: int) -> ocp.args.Composite:
    """The JSON items of a checkpoint: everything but the state. Raises Damaged."""
    if (manager.directory / str(step) / "digests").exists():
        raise UserError(
            f"the checkpoint {manager.directory / str(step)} was written by an older version of sage_jax in a layout "
            "that this one can't read; train again, or use the version that wrote it"
        )
    names = ("config", "vocabulary", "place", "checksums")
    saved = _read(manager, step, **{name: ocp.args.JsonRestore() for name in names})
    _compare(manager, step, _text_checksums(saved.config, saved.vocabulary, saved.place), saved.checksums)
    return saved


def _text_checksums(config: dict[str, Any], vocabulary: dict[str, Any], position: dict[str, Any]) -> dict[str, int]:
    return {name: text_checksum(text) for name, text in (("config", config), ("vocabulary", vocabulary), ("place", position))}


def _compare(manager: ocp.CheckpointManager, step: int, computed: dict[str, int], written: dict[str, Any]) -> None:
    """Raises Damaged if a computed checksum differs from the written one."""
    for name, checksum in computed.items():
        if written.get(name) != checksum:
            raise Damaged(f"cannot use the checkpoint {manager.directory / str(step)}: {name} differs from what was written")


def _validation_loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def _newest_and_best(keep: int) -> checkpoint_managers.PreservationPolicy:
    best = checkpoint_managers.BestN(get_metric_fn=_validation_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
    return checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(keep), best])


def _open(workdir: str | os.PathLike, **options: Any) -> ocp.CheckpointManager:
    folder = pathlib.Path(workdir).absolute() / FOLDER
    manager_options = ocp.CheckpointManagerOptions(best_fn=_validation_loss, best_mode="min", **options)
    try:
        return ocp.CheckpointManager(folder, options=manager_options)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another --workdir") from error


def _reading(workdir: str | os.PathLike) -> contextlib.closing[ocp.CheckpointManager]:
    """A manager that reads on this host alone; a shared one would wait at each read until every host has read."""
    host = jax.process_index()
    this_host = ocp.options.MultiprocessingOptions(primary_host=host, active_processes={host})
    return contextlib.closing(_open(workdir, create=False, multiprocessing_options=this_host))


def _read(manager: ocp.CheckpointManager, step: int, **items: ocp.args.CheckpointArgs) -> ocp.args.Composite:
    """The `items` of a checkpoint. Raises Damaged for any exception of orbax."""
    try:
        return cast(ocp.args.Composite, manager.restore(step, args=ocp.args.Composite(**items)))
    except Exception as error:
        raise Damaged(f"cannot read the checkpoint {manager.directory / str(step)} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
