"""The worker protocol with real processes, and the turns of fake ones."""

import io
import json
import sys
import time

import pytest
from rich.console import Console

from sage_jax.benchmark import interleaved
from sage_jax.benchmark.interleaved import Worker, WorkerFailed, checked, run_interleaved
from tests.benchmark.fake_worker import FakeWorker

ECHO = """
import json, sys
print("{}", flush=True)
for _ in sys.stdin:
    print(json.dumps(json.loads(sys.argv[1])["answer"]), flush=True)
"""
HANGS = "print('{}', flush=True); import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"


@pytest.mark.process
def test_the_error_of_a_worker_that_dies_is_its_last_line():
    with pytest.raises(WorkerFailed, match="no such thing"):
        Worker([sys.executable, "-c", "raise SystemExit('no such thing')"], {}).run()
    with pytest.raises(WorkerFailed, match="exit code 3"):
        Worker([sys.executable, "-c", "raise SystemExit(3)"], {}).run()
    between_turns = Worker([sys.executable, "-c", "print('{}', flush=True); raise SystemExit('gone')"], {})
    assert between_turns.metadata == {} and between_turns._process.wait() == 1
    with pytest.raises(WorkerFailed, match="gone"):
        between_turns.run()


@pytest.mark.process
def test_a_worker_answers_and_one_that_hangs_is_killed_with_its_children():
    start = time.monotonic()
    worker = Worker([sys.executable, "-c", ECHO], {"answer": {"seconds": 1}})
    assert worker.metadata == {} and worker.run() == worker.run() == {"seconds": 1}
    worker.close()
    worker.close()
    worker = Worker([sys.executable, "-c", HANGS], {}, limit=1.0)
    with pytest.raises(WorkerFailed, match="killed after 1 s without an answer"):
        worker.run()
    assert worker._process.returncode == -9
    with pytest.raises(WorkerFailed, match="killed after 0.1 s"):
        Worker([sys.executable, "-c", "import time; time.sleep(60)"], {}, limit=0.1).run()
    assert time.monotonic() - start < 30


@pytest.mark.process
def test_workers_start_at_once_and_one_that_fails_to_start_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(interleaved, "cores", lambda: 2)
    meets = "import pathlib, time\nmine, other = pathlib.Path({!r}), pathlib.Path({!r})\nmine.touch()\n"
    meets += "while not other.exists(): time.sleep(0.01)\n" + ECHO.replace("{", "{{").replace("}", "}}")
    files = {name: str(tmp_path / name) for name in "ab"}
    jobs = {
        mine: ([sys.executable, "-c", meets.format(files[mine], files[other])], dict(steps=1, answer=dict(seconds=[0.1])))
        for mine, other in ("ab", "ba")
    }
    jobs["broken"] = [sys.executable, "-c", "raise SystemExit('no such thing')"], dict(steps=1)
    probe = FakeWorker([], dict(answer=dict(bytes_per_second=1.0, operations_per_second=1.0)))
    console = Console(file=io.StringIO())
    measured = run_interleaved(list(jobs), jobs.__getitem__, 2, probe, {}, "abc", console, limit=60)
    assert [(each.system, each.error) for each in measured] == [("a", ""), ("b", ""), ("broken", "no such thing")]
    probe.close()


def test_a_worker_that_fails_or_measures_another_job_is_an_error(monkeypatch):
    monkeypatch.setattr(interleaved, "Worker", FakeWorker)
    answer = dict(seconds=[0.1, 0.1], events_drawn=2, notes_drawn=2, prefill_seconds=None, peak_megabytes=1.0)
    job = lambda **changes: ([], dict(context_events=9, events=2, answer=answer) | changes)
    jobs = {
        "good": job(),
        "short": job(events=3),
        "uncounted": job(answer=answer | {"events_drawn": 1}),
        "broken": job(answer=WorkerFailed("killed")),
        "missing": job(start=WorkerFailed("its environment is missing")),
    }
    probe = FakeWorker([], dict(answer=dict(bytes_per_second=1.0, operations_per_second=1.0)))
    cell = {"table": "main"}
    measurements = run_interleaved(list(jobs), jobs.__getitem__, 3, probe, cell, "abc", Console(file=io.StringIO()))
    errors = {each.system: each.error for each in measurements if not each.ok}
    (good,) = (each for each in measurements if each.ok)
    assert good.system == "good" and good.seconds == [[0.1, 0.1]] * 2  # without the first round
    assert good.cell == cell and good.commit == "abc" and good.device["bytes_per_second"] == [1.0, 1.0]
    assert errors["short"] == "drew 2 events instead of 3" and errors["broken"] == "killed"
    assert "2 events were timed, but 1 were drawn" in errors["uncounted"]
    assert errors["missing"] == "its environment is missing"
    lines = [each.to_json() for each in measurements]
    assert json.loads(json.dumps(lines)) == lines
    assert FakeWorker.open_workers == {probe}
    probe.close()


def test_a_run_of_training_takes_the_steps_of_its_job():
    assert checked(dict(steps=2), dict(seconds=[1, 1])) == dict(seconds=[1, 1])
    with pytest.raises(WorkerFailed, match="timed 1 steps instead of 2"):
        checked(dict(steps=2), dict(seconds=[1]))
