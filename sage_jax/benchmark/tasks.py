"""The speed of a model with roles in each task, beside that of its plain continuation."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sage_jax.benchmark.ratios import CONTROL, Ratio, paired_ratio
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.tasks.assignment import Assignment
from sage_jax.tasks.performance import perform

CONTINUE = "continue"
MOST = 1024  # events of a continuation


@dataclasses.dataclass(frozen=True)
class TaskSpeed:
    """Own notes per second, the median over turns; the notes of a turn; and the speed over that of `CONTINUE`.

    The ratio is None for too few turns, see `paired_ratio`.
    """

    notes_per_second: float
    notes: int
    over_continuation: Ratio | None


def task_speeds(
    engine: Engine,
    tasks: Mapping[str, Sequence[Assignment]],
    continued: Sequence[Assignment],
    sampling: SamplingConfig,
    turns: int,
    say: Callable[[str], None],
) -> dict[str, TaskSpeed]:
    """The speed of each of `tasks`, and of continuing the pieces of `continued` from their start to their stop.

    All take turns with one engine, in a new random order in each of `turns`; the first turn does not count. The seconds are
    those of all the work: what is given is read, and the host decides what comes next. The continuation takes part twice.
    """
    work: dict[str, Callable[[], int]] = dict.fromkeys(
        (CONTINUE, CONTINUE + CONTROL), functools.partial(_continue, engine, continued, sampling)
    )
    work |= {name: functools.partial(_perform, engine, jobs, sampling) for name, jobs in tasks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    notes, order = {}, np.random.default_rng(0)
    for turn in range(turns):
        for name in order.permutation(list(work)).tolist():
            began = time.perf_counter()
            notes[name] = work[name]()
            if turn:
                seconds[name].append((time.perf_counter() - began) / max(notes[name], 1))
        say(f"turn {turn + 1} of {turns}")
    return {
        name: TaskSpeed(float(1 / np.median(each)), notes[name], paired_ratio(seconds[CONTINUE], each))
        for name, each in seconds.items()
    }


def _perform(engine: Engine, jobs: Sequence[Assignment], sampling: SamplingConfig) -> int:
    """Carries out the jobs; returns the number of own notes."""
    return sum(len(each.notes) for each in perform(engine, jobs, sampling=sampling))


def _continue(engine: Engine, jobs: Sequence[Assignment], sampling: SamplingConfig) -> int:
    """Continues the piece of each job with all its tracks; returns the number of notes."""
    requests = []
    for number, job in enumerate(jobs):
        first, stop = job.piece.bar_of(job.start), job.piece.bar_of(job.stop - 1) + 1
        prompt = job.tokenizer.encode(job.piece.slice_bars(0, first))[:-1]
        limits = Limits(first_bar=first, stop_bar=stop, allow_eos=False, allow_changes=False)
        requests.append(Request(prompt, limits, sampling, MOST, 0, number))
    notes = sum(int(engine.tokenizer.num_notes(each.events).sum()) for each in Scheduler(engine).run(requests))
    engine.reset()
    return notes
