"""Systems that take turns on the same cores, each in a process of its own, with the probe of the device before each round."""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from sage_jax.benchmark.systems import ROOT

Job = tuple[list[str], dict[str, Any]]  # the command of a worker, and its job


class Worker:
    """The process of one subject; waits idle between its turns. variables: of its environment, beside ours."""

    def __init__(self, command: list[str], job: dict[str, Any], variables: Mapping[str, str] | None = None):
        # Waiting costs nothing, and an accelerator's memory is shared.
        quiet = {"OMP_WAIT_POLICY": "passive", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **quiet, **(variables or {})}
        self._said = tempfile.TemporaryFile("w+")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
        self._process = subprocess.Popen([*command, json.dumps(job)], env=environment, cwd=ROOT, text=True, **pipes)
        self.about = self._answer()

    def run(self) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it died between its turns: its answer says so
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = [line for line in self._said.read().splitlines() if line.strip()]
            self.close()
            raise WorkerFailed(said[-1] if said else f"ended with exit code {code}")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()


class WorkerFailed(Exception):
    """A subject that could not be measured; its last words."""


def take_turns(
    systems: Sequence[str],
    job_of: Callable[[str], Job],
    rounds: int,
    probe: Worker,
    setting: Mapping[str, Any],
    console: Console,
) -> list[dict[str, Any]]:
    """One line for each system: all are made ready, then take turns, with the probe of the device before each round.

    job_of: the command of a system's worker, and its job. rounds: turns, at least two, the first of which is not counted.
    setting: what stands in each line. Beside it a line has the worker's `about`, the rates of the `device`, and all that the
    worker's runs told, each by its name as a list over the rounds.
    """
    failed, workers = [], {}

    def give_up(system: str, error: WorkerFailed) -> None:
        failed.append({"system": system, "failed": str(error)[:300], **setting})
        console.print(f"  {system}: not measured: {error}", highlight=False, markup=False)

    try:
        for system in systems:
            try:
                workers[system] = Worker(*job_of(system))
            except WorkerFailed as error:
                give_up(system, error)
        probes, runs = [], {system: [] for system in workers}
        for _ in range(rounds):
            probes.append(probe.run())
            for system, worker in list(workers.items()):
                try:
                    runs[system].append(worker.run())
                except WorkerFailed as error:
                    give_up(system, error)
                    del workers[system]
        device = {name: [each[name] for each in probes[1:]] for name in ("bytes_per_second", "operations_per_second")}
        lines = []
        for system, worker in workers.items():
            counted = runs[system][1:]
            told = {name: [run[name] for run in counted] for name in counted[0]}
            lines.append({"system": system, **setting, "device": device, "about": worker.about, **told})
            median = statistics.median(second for run in counted for second in run["seconds"])
            console.print(f"  {system}: {1000 * median:.2f} ms", highlight=False)
        return lines + failed
    finally:
        for worker in workers.values():
            worker.close()
