"""Workers: a failing task fails alone, and no process is left over."""

import os
import signal
import time

import jax  # noqa: F401  loaded here, so that its absence in workers is a result
import pytest

from sage_jax.corpus.workers import Failure, run_tasks
from tests.corpus.tasks import behave

pytestmark = pytest.mark.process


def test_each_task_has_one_result_whatever_the_others_do():
    tasks = ["a", "hang", "b", "crash", "exit", "hang masked", "raise", "eat", *"cdefgh"]
    began = time.monotonic()
    results = dict(run_tasks(behave, tasks, workers=2, max_seconds=0.5))
    assert time.monotonic() - began < 30
    assert sorted(results) == list(range(len(tasks)))
    failures = {tasks[index]: result.reason for index, result in results.items() if isinstance(result, Failure)}
    assert failures == {
        "hang": "timeout", "hang masked": "timeout", "crash": "crashed", "exit": "crashed", "raise": "error", "eat": "memory"
    }  # fmt: skip
    assert all(results[index] == task for index, task in enumerate(tasks) if task not in failures)
    assert results[tasks.index("raise")].message == "ValueError: two lines"
    assert "SIGSEGV" in results[tasks.index("crash")].message and "3" in results[tasks.index("exit")].message


def test_workers_import_neither_jax_nor_the_caller():
    ((_, modules),) = run_tasks(behave, ["modules"])
    assert "sage_jax" in modules and not {"jax", "pytest", "_pytest"} & set(modules)


def test_no_tasks_start_no_process():
    assert list(run_tasks(behave, [])) == []


def test_workers_end_when_the_iterator_is_closed():
    results = run_tasks(behave, ["pid", "hang", "hang"], workers=2, max_seconds=60)
    _, pid = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_worker_that_cannot_start_raises(monkeypatch):
    monkeypatch.setattr("sage_jax.corpus.workers.SERVE", "raise SystemExit(7)")
    with pytest.raises(RuntimeError, match="exited with code 7"):
        list(run_tasks(behave, ["a"] * 10))
