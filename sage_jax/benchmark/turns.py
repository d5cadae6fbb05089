"""Systems that take turns on the same cores, each in a process of its own, with the probe of the device before each round."""

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from sage_jax.benchmark.systems import ROOT
from sage_jax.benchmark.worker import DecodingRun

Job = tuple[list[str], dict[str, Any]]  # the command of a worker, and its job
TIME_LIMIT = 900.0  # seconds for an answer: several times what the slowest worker needs to compile


class Worker:
    """The process of one subject; waits idle between its turns. Raises WorkerFailed where it ends, or hangs.

    variables: of its environment, beside ours. limit: seconds after which a worker without an answer is killed.
    """

    def __init__(
        self,
        command: list[str],
        job: dict[str, Any],
        variables: Mapping[str, str] | None = None,
        limit: float = TIME_LIMIT,
    ):
        # Waiting costs nothing, and an accelerator's memory is shared.
        quiet = {"OMP_WAIT_POLICY": "passive", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **quiet, **(variables or {})}
        self._limit, self._said = limit, tempfile.TemporaryFile("w+")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
        # In a session of its own, so that what it has started is killed with it and holds no pipe open.
        settings = dict(env=environment, cwd=ROOT, text=True, start_new_session=True)
        self._process = subprocess.Popen([*command, json.dumps(job)], **settings, **pipes)
        try:
            self.about = self._answer()
        except BaseException:  # an interrupt, too, does not reach a session of its own
            self.close()
            raise

    def run(self) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it died between its turns: its answer says so
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(self._limit, give_up)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            self.close()
            raise WorkerFailed(f"killed after {self._limit:g} s without an answer")
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = [line for line in self._said.read().splitlines() if line.strip()]
            self.close()
            raise WorkerFailed(said[-1] if said else f"ended with exit code {code}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the worker and all that it has started; does nothing where that is done."""
        if not self._said.closed:
            self._kill()
            self._process.communicate()
            self._said.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class WorkerFailed(Exception):
    """A subject that could not be measured; its last words."""


def take_turns(
    systems: Sequence[str],
    job_of: Callable[[str], Job],
    rounds: int,
    probe: Worker,
    setting: Mapping[str, Any],
    console: Console,
    limit: float = TIME_LIMIT,
) -> list[dict[str, Any]]:
    """One line for each system: all are made ready, then take turns, with the probe of the device before each round.

    job_of: the command of a system's worker, and its job. rounds: turns, at least two, the first of which is not counted; the
    order within a round is drawn anew, so that none has the same system before it each time. setting: what stands in each
    line. Beside it a line has the worker's `about`, the rates of the `device`, and all that the worker's runs measured, each
    by its name as a list over the rounds. limit: seconds that a worker has for an answer. A worker that fails, hangs, or
    measures something other than its job leaves a line that says so.
    """
    failed, workers, jobs = [], {}, {}
    order = random.Random(0)

    def give_up(system: str, error: WorkerFailed) -> None:
        failed.append({"system": system, "failed": str(error)[:300], **setting})
        console.print(f"  {system}: not measured: {error}", highlight=False, markup=False)

    try:
        for system in systems:
            try:
                command, jobs[system] = job_of(system)
                workers[system] = Worker(command, jobs[system], limit=limit)
            except WorkerFailed as error:
                give_up(system, error)
        probes, runs = [], {system: [] for system in workers}
        for _ in range(rounds):
            probes.append(probe.run())
            for system in order.sample(list(workers), len(workers)):
                try:
                    runs[system].append(checked(jobs[system], workers[system].run()))
                except WorkerFailed as error:
                    give_up(system, error)
                    workers.pop(system).close()
        device = {name: [each[name] for each in probes[1:]] for name in ("bytes_per_second", "operations_per_second")}
        lines = []
        for system, worker in workers.items():
            counted = runs[system][1:]
            measured = {name: [run[name] for run in counted] for name in counted[0]}
            lines.append({"system": system, **setting, "device": device, "about": worker.about, **measured})
            median = statistics.median(second for run in counted for second in run["seconds"])
            console.print(f"  {system}: {1000 * median:.2f} ms", highlight=False)
        return lines + failed
    finally:
        for worker in workers.values():
            worker.close()


def checked(job: Mapping[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The `run`, if it is one of the `job`. Raises WorkerFailed where other events or steps were timed than those asked for."""
    if "context_events" not in job:
        if len(run["seconds"]) != job["steps"]:
            raise WorkerFailed(f"timed {len(run['seconds'])} steps, where {job['steps']} were wanted")
        return run
    try:
        decoded = DecodingRun(**run)
    except (TypeError, ValueError) as error:
        raise WorkerFailed(f"its run is no measurement of decoding: {error}") from error
    if decoded.events_drawn != job["events"]:
        raise WorkerFailed(f"drew {decoded.events_drawn} events, where {job['events']} were wanted")
    return run
