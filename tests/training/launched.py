"""Runs of `launch.train` in processes of their own, to be watched and done harm to."""

import atexit
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sage_jax.training.metrics import read_metrics

FLAGS = (
    "--config=configs/sage.py:debug", "--config.model.layers=1", "--config.train.batch_size=8", "--config.model.sharing=mqa",
    # The learning rate does not follow the number of steps, so that a run can be a beginning of another one.
    "--config.optimizer.end_fraction=1.0", "--config.train.eval_every=4", "--config.train.checkpoint_every=4",
)  # fmt: skip


def start(workdir: pathlib.Path, shards: pathlib.Path, *flags: str, of=FLAGS, devices: int = 1) -> subprocess.Popen:
    """A run on so many fake devices, which ends at the latest with this process; `of` are the flags that `flags` go behind."""
    command = [sys.executable, "-m", "launch.train", *of, f"--workdir={workdir}", f"--config.data.shards={shards}", *flags]
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": xla}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    atexit.register(process.kill)
    return process


def free_address() -> str:
    """HOST:PORT of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_hosts(count: int, *arguments, each: dict[int, list[str]] | None = None, **options) -> list[subprocess.Popen]:
    """A run as so many processes that are hosts of one; `each` has flags of some alone."""
    joined = [f"--coordinator={free_address()}", f"--num_hosts={count}"]
    of_host = lambda host: [*joined, f"--host={host}", *(each or {}).get(host, ())]
    return [start(*arguments, *of_host(host), **options) for host in range(count)]


def end(processes: list[subprocess.Popen], code: int = 0, timeout: float | None = 300) -> list[tuple[str, str]]:
    """What each host said, all of which end with `code`. They are heard at once: one that nobody hears stops at a full pipe."""
    with ThreadPoolExecutor(len(processes)) as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=timeout), processes))
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said


def kill(*hosts: subprocess.Popen) -> None:
    """One dies, and the scheduler ends the others, which wait for it."""
    for host in hosts:
        host.kill()
        host.communicate()


def finish(*arguments, **options) -> tuple[str, str]:
    """What a run that ends well says."""
    [said] = end([start(*arguments, **options)])
    return said


def wait_for(process: subprocess.Popen, is_so: Callable[[], bool]) -> None:
    while process.poll() is None and not is_so():
        time.sleep(0.05)


def has_reached(workdir: pathlib.Path, step: int) -> Callable[[], bool]:
    return lambda: any(line["step"] >= step for line in read_metrics(workdir / "metrics.jsonl", "train"))


def last_step(workdir: pathlib.Path) -> int:
    """Of which there is a loss."""
    return max(step for _, step in losses(workdir))


def losses(workdir: pathlib.Path) -> dict[tuple[str, int], float]:
    """By kind and step."""
    lines = [line for kind in ("train", "valid") for line in read_metrics(workdir / "metrics.jsonl", kind)]
    return {(line["kind"], line["step"]): line["loss"] for line in lines}
