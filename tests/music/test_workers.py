"""Workers: a task that misbehaves costs itself, and nothing is left behind."""

import os
import signal
import time

import jax  # noqa: F401  in this process, so that its absence in workers means something
import pytest

from sage_jax.music.workers import Failure, run_tasks
from tests.music.tasks import behave


def test_every_task_has_one_answer_whatever_the_others_do():
    tasks = ["a", "hang", "b", "crash", "exit", "hang deaf", "raise", "eat", *"cdefgh"]
    began = time.monotonic()
    answers = dict(run_tasks(behave, tasks, workers=2, max_seconds=0.5))
    assert time.monotonic() - began < 30
    assert sorted(answers) == list(range(len(tasks)))
    told = {tasks[index]: answer.reason for index, answer in answers.items() if isinstance(answer, Failure)}
    assert told == {
        "hang": "timeout", "hang deaf": "timeout", "crash": "crashed", "exit": "crashed", "raise": "error", "eat": "memory"
    }  # fmt: skip
    assert all(answers[index] == task for index, task in enumerate(tasks) if task not in told)
    assert answers[tasks.index("raise")].message == "ValueError: two lines"
    assert "SIGSEGV" in answers[tasks.index("crash")].message and "3" in answers[tasks.index("exit")].message


def test_workers_do_not_import_jax_nor_the_caller():
    ((_, modules),) = run_tasks(behave, ["modules"])
    assert "sage_jax" in modules and not {"jax", "pytest", "_pytest"} & set(modules)


def test_no_tasks_start_no_process():
    assert list(run_tasks(behave, [])) == []


def test_workers_end_with_their_caller():
    answers = run_tasks(behave, ["pid", "hang", "hang"], workers=2, max_seconds=60)
    _, pid = next(answers)
    answers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_cannot_start_is_no_endless_loop(monkeypatch):
    monkeypatch.setattr("sage_jax.music.workers.SERVE", "raise SystemExit(7)")
    with pytest.raises(RuntimeError, match="exited with code 7"):
        list(run_tasks(behave, ["a"] * 10))
