"""Worker processes in which a task may hang, crash or eat memory at the price of that task alone."""

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

# What runs in a worker: a fresh interpreter, so that nothing of the caller (its main module, jax) is loaded there.
SERVE = "import sys; from sage_jax.music.workers import serve; serve(*map(float, sys.argv[1:]))"


@dataclasses.dataclass(frozen=True)
class Failure:
    """What came of a task that raised or took its worker along: a short slug to count by, and one line."""

    reason: str
    message: str


# Made beforehand: there is no memory for it when it's needed.
OUT_OF_MEMORY = Failure("memory", "it needs more memory than the limit")


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    workers: int = 0,
    max_seconds: float = 60.0,
    max_bytes: int = 4 << 30,
) -> Iterator[tuple[int, Any]]:
    """Yields (index of a task, `function(task)` or a Failure) as tasks are done, in any order.

    `function` is picklable by name. `workers` is 0 for one per core; a task gets `max_seconds` of time and its worker
    `max_bytes` of address space. Raises RuntimeError where workers can't start at all.
    """
    given = 0  # tasks that a worker has or had
    crew: dict[Connection, _Worker] = {}

    def hire() -> None:
        worker = _Worker.start(function, max_seconds, max_bytes)
        crew[worker.pipe] = worker

    try:
        for _ in range(min(workers or count_cores(), len(tasks))):
            hire()
        while crew:
            for pipe in wait(list(crew)):
                worker = crew[pipe]
                done = worker.task
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):
                    answer = crew.pop(pipe).cause_of_death()
                    if done is None:
                        raise RuntimeError(f"a worker process can't start: {answer.message}") from None
                    if given < len(tasks):
                        hire()
                else:
                    if given < len(tasks):
                        worker.take(given, tasks[given])
                        given += 1
                    else:
                        crew.pop(pipe).end()
                if done is not None:
                    yield done, answer
    finally:
        for worker in crew.values():
            worker.end()


@dataclasses.dataclass
class _Worker:
    process: subprocess.Popen
    pipe: Connection
    task: int | None = None  # None until it has said that it is ready

    @classmethod
    def start(cls, function: Callable, max_seconds: float, max_bytes: int) -> "_Worker":
        # One thread to a worker, and our own way to modules; numpy's thread pools would also fill the address space.
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

    def take(self, index: int, task: Any) -> None:
        self.task = index
        self._send(task)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # a worker that has died is met again when its answer is read
            self.pipe.send(message)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()

    def cause_of_death(self) -> Failure:
        """Why a worker whose pipe was found closed is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5.0)
        self.end()
        code = self.process.returncode
        if code == -signal.SIGALRM:
            return Failure("timeout", "it takes longer than the limit")
        died = f"exited with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        return Failure("crashed", f"the process that worked on it {died}")


def serve(descriptor: float, max_seconds: float, max_bytes: float) -> None:
    """The life of a worker: takes a function, then one task after another, until the pipe is closed."""
    # The terminal's Ctrl-C reaches the whole group: the parent decides. Its death closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Connection(int(descriptor)) as pipe, contextlib.suppress(EOFError, BrokenPipeError):
        function = pipe.recv()
        gc.freeze()  # what is loaded by now stays: not looking through it again saves a tenth of the time
        pipe.send(None)
        while True:
            task = pipe.recv()
            # The kernel ends a task that overstays: no loop, be it in Python or in C, can hold this signal up.
            signal.setitimer(signal.ITIMER_REAL, max_seconds)
            _limit_memory(int(max_bytes))
            try:
                answer = function(task)
            except MemoryError:
                answer = OUT_OF_MEMORY
            except Exception as error:
                answer = Failure("error", " ".join(f"{type(error).__name__}: {error}".split()))
            _limit_memory(resource.getrlimit(resource.RLIMIT_AS)[1])  # to answer, a worker may have what it needs
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(answer)


def _limit_memory(soft: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))
