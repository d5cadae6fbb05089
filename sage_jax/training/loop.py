"""The training loop: from a config and a workdir to a trained checkpoint."""

import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from sage_jax.config import RunConfig
from sage_jax.corpus.shards import TokenShards, music_fingerprint
from sage_jax.data.pipeline import make_dataset
from sage_jax.data.rows import PackingStats
from sage_jax.errors import Preempted, UserError
from sage_jax.music.notes import Piece
from sage_jax.programs import load_or_compile
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.training import hosts
from sage_jax.training.best_step import BestStep
from sage_jax.training.checkpoint import Checkpoints
from sage_jax.training.initial_weights import begin_with, load_initial
from sage_jax.training.metric_logger import MetricLogger
from sage_jax.training.metrics import METRICS_FILE, read_metrics
from sage_jax.training.preemption import StopSignal, this_command
from sage_jax.training.run_manifest import record_start
from sage_jax.training.sample_logging import SampleLogger
from sage_jax.training.step import Batch, LossSums
from sage_jax.training.tensorboard import check_installed
from sage_jax.training.train_functions import empty_batch, make_train_functions


def train(config: ConfigDict | Mapping[str, Any], workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains the run of `config` in `workdir` up to `train.steps`, from its newest checkpoint if there is one.

    config: the sections of configs/sage.py, as default_config gives them. workdir: its `data` has the token shards of
    launch.preprocess, unless data.shards names another folder.

    Returns 'step', the last 'train' and 'valid' lines of metrics.jsonl (or None), and 'compile_seconds' and 'train_seconds' of
    this call. Raises UserError for an invalid config or workdir, Diverged for a loss that is not finite, and Preempted after
    SIGTERM or Ctrl-C, once the state is saved.
    """
    with hosts.raise_together():
        sections = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
        run = RunConfig.from_dict(sections)
        if run.train.tensorboard:
            check_installed()
    workdir = pathlib.Path(workdir)
    shards = pathlib.Path(run.data.shards or workdir / "data")
    with hosts.primary_first():
        representation = load_tokenizer(run, shards, workdir)
    packing_stats = PackingStats()
    with hosts.raise_together():
        train_data, valid_data = datasets(run, shards, representation, packing_stats)
        sample_logger = SampleLogger(run, representation, shards) if run.train.tensorboard else None
        fingerprint = music_fingerprint(shards)
        initial = load_initial(run, representation) if run.train.init_from else None
    hosts.check_agreement(run, fingerprint)
    functions = make_train_functions(run, representation)
    train_step, eval_step = functions.train_step, functions.eval_step
    with Checkpoints(workdir, run, representation) as checkpoints, StopSignal() as stop:
        # The state, and the position in the data that belongs to it.
        state, batches, best = functions.init(run.train.seed), iter(train_data), BestStep(run.train.patience)
        start = functions.unshard_state(state)
        if hosts.max_over_hosts(checkpoints.latest_step or 0):  # `restore` reports a checkpoint that some host can't read
            start, position = checkpoints.restore(start)
            state = functions.shard_state(start)
            if position["music"] != fingerprint:
                raise UserError(
                    f"the shards in {shards} have changed since {workdir} was trained on them; use the old shards "
                    "(--config.data.shards=...), or train in another --workdir"
                )
            batches.set_state(position["next"])
            best = BestStep(run.train.patience, position.get("best"))
        elif initial is not None:
            start = begin_with(start, initial)
            state = functions.shard_state(start)
        step, num_params = int(start.step), sum(leaf.size for leaf in jax.tree.leaves(start.params))
        finished = step >= run.train.steps or best.exhausted

        with hosts.raise_together():
            metric_logger = MetricLogger(workdir, run, step)
        with metric_logger:
            # Compilation, or loading, ahead of time, so that it is not part of the timed steps.
            compile_seconds = 0.0
            if not finished:
                with hosts.raise_together():
                    if hosts.is_primary():
                        record_start(workdir, {**sections, **run.to_dict()}, step)
                started = time.perf_counter()
                batch = functions.shard_batch(empty_batch(run))
                key = (run, type(representation), representation.fingerprint)
                train_step = load_or_compile(train_step, state, batch, key=key)
                eval_step = load_or_compile(eval_step, state.params, batch, key=key)
                compile_seconds = time.perf_counter() - started
                remarks = (*functions.remarks, *(sample_logger.remarks if sample_logger else ()))
                metric_logger.start(step, num_params, compile_seconds, remarks)

            # Steps. The metrics of a step are fetched after the next one is dispatched, so that the device never waits.
            pending = None
            while not finished:
                state, metrics = train_step(state, functions.shard_batch(next(batches)))
                step += 1
                if pending:
                    metric_logger.train(*pending)
                pending = step, metrics
                at_end = step >= run.train.steps or metric_logger.out_of_time
                finished = at_end or stop.is_requested(step)
                evaluating = at_end or step % run.train.eval_every == 0
                saving = finished or step % run.train.checkpoint_every == 0
                if evaluating or saving:
                    metric_logger.train(*pending)  # raises Diverged before a state that is not finite is saved
                    pending = None
                    losses = {}
                    if evaluating:
                        valid_batches = map(functions.shard_batch, valid_data)
                        losses = evaluate(eval_step, state.evaluated, valid_batches, representation.attributes)
                        metric_logger.valid(step, losses)
                        saving |= best.add(step, losses["loss"])
                        if best.exhausted:
                            finished = saving = True
                        if sample_logger:
                            metric_logger.samples(step, sample_logger.draw(functions.unshard_state(state).evaluated, step))
                    if saving:
                        position = {"next": batches.get_state(), "music": fingerprint, "best": best.to_dict()}
                        checkpoints.save(functions.unshard_state(state), position, losses.get("loss"))
                    metric_logger.resume()
            metric_logger.packing(step, packing_stats)
            if not stop.signal:
                metric_logger.end(step, best.step if best.exhausted else None)
    if stop.signal:
        message = f"stopped by {stop.signal.name}; step {step} of {run.train.steps} is saved"
        if hosts.is_primary():
            print(f"{message}. Resume with: {this_command()}")
        raise Preempted(message, stop.exit_code)
    lines = {kind: read_metrics(workdir / METRICS_FILE, kind) for kind in ("train", "valid")}
    last = {kind: lines[kind][-1] if lines[kind] else None for kind in lines}
    return {"step": step, "compile_seconds": compile_seconds, "train_seconds": metric_logger.seconds, **last}


def load_tokenizer(run: RunConfig, shards: pathlib.Path, workdir: pathlib.Path) -> Tokenizer:
    """The representation of the run. Merges, if it has any, are learned from the training split."""

    def pieces() -> Iterator[Piece]:
        for events in TokenShards(shards, "train", run.tokenizer, run.data.max_pieces):
            yield run.tokenizer.decode(events)

    return run.representation.learn(run.tokenizer, pieces(), workdir)


def datasets(
    run: RunConfig, shards: pathlib.Path, representation: Tokenizer, packing_stats: PackingStats | None = None
) -> tuple[grain.IterDataset, grain.IterDataset]:
    """The training batches, without end, and the validation batches, the same at each iteration.

    packing_stats: accumulates, over the training rows, the number of steps, of steps cut off, and of step slots.
    """
    dataset = functools.partial(
        make_dataset,
        shards,
        tokenizer=run.tokenizer,
        context_events=run.data.context_events,
        batch_size=run.train.batch_size,
        seed=run.train.seed,
        representation=representation,
        num_steps=run.context,
        tasks=run.tasks,
        share=(jax.process_index(), jax.process_count()),
    )
    valid = dataset("valid", shuffle=False, max_batches=run.train.eval_batches)
    train = dataset(
        "train",
        transpose=run.data.transpose,
        augment=run.augment,
        tally=packing_stats,
        pack=run.data.pack,
        max_pieces=run.data.max_pieces,
    )
    return train, valid


def evaluate(eval_step: Callable, params: Any, batches: Iterable[Batch], attributes: tuple[str, ...]) -> dict[str, float]:
    """The loss over `batches` in nats per note: 'loss' and the share of each attribute."""
    sums = jax.tree.map(np.float64, jax.device_get(LossSums.zeros(len(attributes))))
    for batch in batches:
        sums = jax.tree.map(np.add, sums, jax.device_get(eval_step(params, batch)))
    return {name: float(value) for name, value in sums.nats_per_note(attributes).items()}
