"""A pool of worker processes. A task that hangs, crashes or uses too much memory fails alone."""

import contextlib
import dataclasses
import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

# A worker is a fresh interpreter, so it does not load the caller's modules (its main module, jax).
SERVE = "import sys; from sage_jax.corpus.workers import serve; serve(*map(float, sys.argv[1:]))"


@dataclasses.dataclass(frozen=True)
class Failure:
    """The result of a task that raised or whose worker died. reason: a short slug for counting. message: one line."""

    reason: str
    message: str


# Created in advance, since a worker without memory could not create it.
OUT_OF_MEMORY = Failure("memory", "it needs more memory than the limit")


def count_cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    workers: int = 0,
    max_seconds: float = 60.0,
    max_bytes: int = 4 << 30,
) -> Iterator[tuple[int, Any]]:
    """Yields (task index, result) as tasks finish, in any order. A result is `function(task)` or a Failure.

    function: picklable. workers: number of processes, 0 for one per core. max_seconds: time limit of a task.
    max_bytes: address space of a worker. Raises RuntimeError if workers cannot start.
    """
    num_assigned = 0
    pool: dict[Connection, _Worker] = {}

    def start_worker() -> None:
        worker = _Worker.start(function, max_seconds, max_bytes)
        pool[worker.pipe] = worker

    try:
        for _ in range(min(workers or count_cores(), len(tasks))):
            start_worker()
        while pool:
            ready = wait(list(pool))
            for pipe in [pipe for pipe in pool if pipe in ready]:
                worker = pool[pipe]
                finished = worker.task
                try:
                    result = pipe.recv()
                except (EOFError, OSError):
                    result = pool.pop(pipe).exit_failure()
                    if finished is None:
                        raise RuntimeError(f"a worker process can't start: {result.message}") from None
                    if num_assigned < len(tasks):
                        start_worker()
                else:
                    if num_assigned < len(tasks):
                        worker.assign(num_assigned, tasks[num_assigned])
                        num_assigned += 1
                    else:
                        pool.pop(pipe).stop()
                if finished is not None:
                    yield finished, result
    finally:
        for worker in pool.values():
            worker.stop()


@dataclasses.dataclass
class _Worker:
    process: subprocess.Popen
    pipe: Connection
    task: int | None = None  # None until the worker reports that it is ready

    @classmethod
    def start(cls, function: Callable, max_seconds: float, max_bytes: int) -> "_Worker":
        # One thread per worker: numpy's thread pools would also use up the address space. Modules are found as in this process.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", SERVE, str(theirs.fileno()), str(max_seconds), str(max_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        worker = cls(process, ours)
        worker._send(function)
        return worker

    def assign(self, index: int, task: Any) -> None:
        self.task = index
        self._send(task)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # a dead worker is handled when its result is read
            self.pipe.send(message)

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()

    def exit_failure(self) -> Failure:
        """The reason why a worker with a closed pipe has died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5.0)
        self.stop()
        code = self.process.returncode
        if code == -signal.SIGALRM:
            return Failure("timeout", "it takes longer than the limit")
        died = f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        return Failure("crashed", f"its worker process {died}")


def serve(descriptor: float, max_seconds: float, max_bytes: float) -> None:
    """Main loop of a worker: receives a function, then tasks, until the pipe is closed. descriptor: of the pipe."""
    # Ctrl-C reaches the whole process group; workers leave it to the parent, whose death closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Connection(int(descriptor)) as pipe, contextlib.suppress(EOFError, BrokenPipeError):
        function = pipe.recv()
        gc.freeze()  # excludes loaded modules from garbage collection, which saves a tenth of the time
        pipe.send(None)
        while True:
            task = pipe.recv()
            # SIGALRM's default action kills the process at the time limit, even within a loop in C.
            signal.setitimer(signal.ITIMER_REAL, max_seconds)
            _limit_memory(int(max_bytes))
            try:
                result = function(task)
            except MemoryError:
                result = OUT_OF_MEMORY
            except Exception as error:
                result = Failure("error", " ".join(f"{type(error).__name__}: {error}".split()))
            _limit_memory(resource.getrlimit(resource.RLIMIT_AS)[1])  # sending the result may exceed the limit
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(result)


def _limit_memory(soft: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))
