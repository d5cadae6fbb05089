"""Interleaved measurement: systems in processes of their own take turns on the same cores, after a probe of the device."""

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

from sage_jax.benchmark.measurement import Measurement
from sage_jax.benchmark.worker import DecodingRun
from sage_jax.environment import cores
from sage_jax.files import ROOT

Job = tuple[list[str], dict[str, Any]]  # the command of a worker, and the job that it gets as JSON
TIME_LIMIT = 900.0  # seconds per answer; the slowest worker compiles in a fraction of it
MAX_ERROR = 300  # characters


class WorkerFailed(Exception):
    """A system could not be measured. The message is the last line that its worker wrote, or the reason."""


class Worker:
    """The process of one system, idle between its turns. It is started at once, and may not be ready yet.

    environment: variables in addition to this process's own.
    limit: seconds after which a worker that does not answer is killed.
    """

    def __init__(
        self,
        command: list[str],
        job: dict[str, Any],
        environment: Mapping[str, str] | None = None,
        limit: float = TIME_LIMIT,
    ):
        # Idle workers must not spin, and they share an accelerator's memory.
        shared = {"OMP_WAIT_POLICY": "passive", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._limit, self._stderr = limit, tempfile.TemporaryFile("w+")
        self._metadata: dict[str, Any] | None = None
        self._process = subprocess.Popen(
            [*command, json.dumps(job)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **shared, **(environment or {})},
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # so that its children can be killed with it
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """What the system reports when it is ready. Waits for it; raises WorkerFailed if it ends early or hangs."""
        if self._metadata is None:
            try:
                self._metadata = self._answer()
            except BaseException:  # an interrupt does not reach the new session
                self.close()
                raise
        return self._metadata

    def run(self) -> dict[str, Any]:
        """Does one run and returns its result. Raises WorkerFailed if the worker ends early or hangs."""
        _ = self.metadata
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead worker: _answer raises
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
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
            self._stderr.seek(0)
            errors = [line for line in self._stderr.read().splitlines() if line.strip()]
            self.close()
            raise WorkerFailed(errors[-1] if errors else f"ended with exit code {code}")
        return json.loads(line)

    def close(self) -> None:
        """Kills the worker and its children. A second call does nothing."""
        if not self._stderr.closed:
            self._kill()
            self._process.communicate()
            self._stderr.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def run_interleaved(
    systems: Sequence[str],
    job_of: Callable[[str], Job],
    rounds: int,
    probe: Worker,
    cell: Mapping[str, Any],
    commit: str,
    console: Console,
    limit: float = TIME_LIMIT,
) -> list[Measurement]:
    """Measures the systems in turns; returns one measurement per system, those with an error last.

    All workers start first, as many at once as there are cores. Each of `rounds` rounds (at least two) probes the device and
    runs every system once, in a new random order, so that no system always follows the same other one. The first round is a
    warm-up and does not count.

    job_of: a system's command and job.
    cell, commit: copied to each measurement.
    limit: seconds per answer. A worker that fails, hangs or measures another job than its own becomes a measurement with an
      error.
    """
    errors: list[Measurement] = []
    workers: dict[str, Worker] = {}
    jobs: dict[str, dict[str, Any]] = {}
    order = random.Random(0)

    def give_up(system: str, error: WorkerFailed) -> None:
        errors.append(Measurement(system, dict(cell), commit, error=str(error)[:MAX_ERROR]))
        console.print(f"  {system}: not measured: {error}", highlight=False, markup=False)

    try:
        for first in range(0, len(systems), cores()):
            for system in systems[first : first + cores()]:
                try:
                    command, jobs[system] = job_of(system)
                    workers[system] = Worker(command, jobs[system], limit=limit)
                except WorkerFailed as error:
                    give_up(system, error)
            for system, worker in list(workers.items()):
                try:
                    _ = worker.metadata
                except WorkerFailed as error:
                    give_up(system, error)
                    del workers[system]
        probes: list[dict[str, float]] = []
        runs: dict[str, list[dict[str, Any]]] = {system: [] for system in workers}
        for _ in range(rounds):
            probes.append(probe.run())
            for system in order.sample(list(workers), len(workers)):
                try:
                    runs[system].append(checked(jobs[system], workers[system].run()))
                except WorkerFailed as error:
                    give_up(system, error)
                    workers.pop(system).close()
        device = {name: [each[name] for each in probes[1:]] for name in ("bytes_per_second", "operations_per_second")}
        measurements = []
        for system, worker in workers.items():
            counted = runs[system][1:]
            fields: dict[str, Any] = {name: [run[name] for run in counted] for name in counted[0]}
            measurements.append(
                Measurement(system, dict(cell), commit, metadata=worker.metadata, device=device, **fields)
            )
            median = statistics.median(second for run in counted for second in run["seconds"])
            console.print(f"  {system}: {1000 * median:.2f} ms", highlight=False)
        return measurements + errors
    finally:
        for worker in workers.values():
            worker.close()


def checked(job: Mapping[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Returns `run` if it timed what `job` requests. Raises WorkerFailed for another number of events or steps."""
    if "context_events" not in job:
        if len(run["seconds"]) != job["steps"]:
            raise WorkerFailed(f"timed {len(run['seconds'])} steps instead of {job['steps']}")
        return run
    try:
        decoded = DecodingRun(**run)
    except (TypeError, ValueError) as error:
        raise WorkerFailed(f"its run is not a DecodingRun: {error}") from error
    if decoded.events_drawn != job["events"]:
        raise WorkerFailed(f"drew {decoded.events_drawn} events instead of {job['events']}")
    return run
