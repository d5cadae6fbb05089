"""The training run: everything in order, from a config and a workdir to a trained checkpoint."""

import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sage_jax.data.pipeline import make_dataset
from sage_jax.data.rows import Tally
from sage_jax.errors import Preempted, UserError
from sage_jax.music.notes import Piece
from sage_jax.music.representation import Representation
from sage_jax.music.shards import TokenShards, music_fingerprint
from sage_jax.training import hosts
from sage_jax.training.checkpoint import Checkpoints
from sage_jax.training.config import RunConfig
from sage_jax.training.interrupt import StopRequest, this_command
from sage_jax.training.metrics import read_metrics
from sage_jax.training.previews import Previews
from sage_jax.training.programs import empty_batch, make_programs
from sage_jax.training.recorder import METRICS_FILE, Recorder
from sage_jax.training.starts import note_start
from sage_jax.training.step import Batch, Totals
from sage_jax.training.tensorboard import check_installed


def train(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Trains the run of `config` in `workdir` up to `train.steps`, from its newest checkpoint if there is one.

    Returns 'step', the last 'train' and 'valid' lines of metrics.jsonl (None without any), and 'compile_seconds' and
    'train_seconds' of this call. Raises UserError for a config or a workdir that won't do, Diverged for a loss that is
    not finite, and after SIGTERM or Ctrl-C Preempted, once the state is saved.
    """
    with hosts.together():
        run = RunConfig.from_dict(config.to_dict())
        if run.train.tensorboard:
            check_installed()
    workdir = pathlib.Path(workdir)
    shards = pathlib.Path(run.data.shards or workdir / "data")
    with hosts.first_alone():
        representation = told_in(run, shards, workdir)
    tally = Tally()
    with hosts.together():
        train_data, valid_data = datasets(run, shards, representation, tally)
        previews = Previews(run, representation, shards) if run.train.tensorboard else None
        music = music_fingerprint(shards)
    hosts.check_agreement(run, music)
    programs = make_programs(run, representation)
    update, score = programs.update, programs.score
    with Checkpoints(workdir, run, representation) as checkpoints, StopRequest() as stop:
        # The state, and the place in the data that belongs to it.
        state, batches = programs.init(run.train.seed), iter(train_data)
        start = programs.whole(state)
        if hosts.largest(checkpoints.latest_step or 0):  # one that a host can't see is noticed while it is read
            start, place = checkpoints.restore(start)
            state = programs.spread(start)
            if place["music"] != music:
                raise UserError(
                    f"the shards in {shards} have changed since {workdir} was trained on them; go on with those it had "
                    "(--config.data.shards=...), or train in another --workdir"
                )
            batches.set_state(place["next"])
        step, parameters = int(start.step), sum(leaf.size for leaf in jax.tree.leaves(start.params))
        finished = step >= run.train.steps

        with hosts.together():
            recorder = Recorder(workdir, run, step)
        with recorder:
            # Compilation, apart from what is timed.
            compile_seconds = 0.0
            if not finished:
                with hosts.together():
                    if hosts.is_first():
                        note_start(workdir, {**config.to_dict(), **run.to_dict()}, step)
                started = time.perf_counter()
                batch = programs.place(empty_batch(run))
                update = update.lower(state, batch).compile()
                score = score.lower(state.params, batch).compile()
                compile_seconds = time.perf_counter() - started
                remarks = (*programs.remarks, *(previews.remarks if previews else ()))
                recorder.start(step, parameters, compile_seconds, remarks)

            # Steps. The metrics of each are fetched when the next one is under way, so that the device never waits.
            pending = None
            while not finished:
                state, metrics = update(state, programs.place(next(batches)))
                step += 1
                if pending:
                    recorder.train(*pending)
                pending = step, metrics
                at_end = step >= run.train.steps or recorder.out_of_time
                finished = at_end or stop.is_asked(step)
                evaluating = at_end or step % run.train.eval_every == 0
                saving = finished or step % run.train.checkpoint_every == 0
                if evaluating or saving:
                    recorder.train(*pending)  # raises before a state that is not finite could be saved
                    pending = None
                    losses = {}
                    if evaluating:
                        losses = evaluate(score, state.params, map(programs.place, valid_data), representation.attributes)
                        recorder.valid(step, losses)
                        if previews:
                            recorder.preview(step, previews.draw(programs.whole(state).params, step))
                    if saving:
                        place = {"next": batches.get_state(), "music": music}
                        checkpoints.save(programs.whole(state), place, losses.get("loss"))
                    recorder.resume()
            recorder.crops(step, tally)
            if not stop.signal:
                recorder.end(step)
    if stop.signal:
        message = f"stopped by {stop.signal.name}; step {step} of {run.train.steps} is saved"
        if hosts.is_first():
            print(f"{message}. Resume with: {this_command()}")
        raise Preempted(message, stop.exit_code)
    lines = {kind: read_metrics(workdir / METRICS_FILE, kind) for kind in ("train", "valid")}
    last = {kind: lines[kind][-1] if lines[kind] else None for kind in lines}
    return {"step": step, "compile_seconds": compile_seconds, "train_seconds": recorder.seconds, **last}


def told_in(run: RunConfig, shards: pathlib.Path, workdir: pathlib.Path) -> Representation:
    """The representation of the run; what it has to learn, it learns from the training split."""

    def pieces() -> Iterator[Piece]:
        for events in TokenShards(shards, "train", run.tokenizer):
            yield run.tokenizer.decode(events)

    return run.representation.learn(run.tokenizer, pieces(), workdir)


def datasets(
    run: RunConfig, shards: pathlib.Path, representation: Representation, tally: Tally | None = None
) -> tuple[Iterable[Batch], Iterable[Batch]]:
    """The batches to train on, without end, and those to validate on, the same ones each time.

    tally: counts the steps to train on, those that had no room in a crop, and the room.
    """
    dataset = functools.partial(
        make_dataset,
        shards,
        tokenizer=run.tokenizer,
        num_events=run.data.num_events,
        batch_size=run.train.batch_size,
        seed=run.train.seed,
        representation=representation,
        num_steps=run.context,
        share=(jax.process_index(), jax.process_count()),
    )
    valid = dataset("valid", shuffle=False, max_batches=run.train.eval_batches)
    return dataset("train", transpose=run.data.transpose, tally=tally, pack=run.data.pack), valid


def evaluate(score: Callable, params: Any, batches: Iterable[Batch], attributes: tuple[str, ...]) -> dict[str, float]:
    """Nats per note over `batches`: 'loss' and each attribute's share."""
    totals = jax.tree.map(np.float64, jax.device_get(Totals.zeros(len(attributes))))
    for batch in batches:
        totals = jax.tree.map(np.add, totals, jax.device_get(score(params, batch)))
    return {name: float(value) for name, value in totals.nats_per_note(attributes).items()}
