"""Runs of `launch.train` in processes of their own, for tests that kill or limit them."""

import atexit
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ml_collections import ConfigDict

from configs.sage import get_config
from sage_jax.training.metrics import read_metrics

CONFIG = {
    "representation.name": "remi",  # the fastest to compile
    "model.num_layers": 1,
    "model.kv_sharing": "mqa",
    "train.batch_size": 8,
    "train.eval_every": 4,
    "train.checkpoint_every": 4,
    # The learning rate must not depend on the number of steps, so that a short run is the start of a longer one.
    "optimizer.final_lr_fraction": 1.0,
}
FLAGS = ("--config=configs/sage.py:debug", *(f"--config.{field}={value}" for field, value in CONFIG.items()))


def config_of(shards: pathlib.Path, **train: int) -> ConfigDict:
    """The config of FLAGS, for a run in this process."""
    config = get_config("debug")
    config.update_from_flattened_dict(CONFIG | {"data.shards": str(shards)})
    config.train.update(train)
    return config


def command(workdir: pathlib.Path, shards: pathlib.Path, *flags: str, base_flags=FLAGS) -> list[str]:
    """The command line of a run; `flags` override `base_flags`."""
    paths = [f"--workdir={workdir}", f"--config.data.shards={shards}"]
    return [sys.executable, "-m", "launch.train", *base_flags, *paths, *flags]


def start(*arguments, devices: int = 1, **options) -> subprocess.Popen:
    """Starts `command` on `devices` fake devices; the process ends with this one at the latest."""
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return spawn(command(*arguments, **options), env=with_programs() | {"XLA_FLAGS": xla})


def with_programs() -> dict[str, str]:
    """The environment of a process that replaces no code. By default it keeps its compiled programs for the next one."""
    return {name: value for name, value in os.environ.items() if name != "SAGE_JAX_PROGRAMS"}


def spawn(arguments: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    atexit.register(process.kill)
    return process


def free_address() -> str:
    """HOST:PORT of a free port of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_hosts(count: int, *arguments, **options) -> list[subprocess.Popen]:
    """Starts a run on `count` hosts, each a process."""
    joined = [f"--coordinator={free_address()}", f"--num_processes={count}"]
    return [start(*arguments, *joined, f"--process_id={host}", **options) for host in range(count)]


def end(processes: list[subprocess.Popen], code: int = 0, timeout: float | None = 300) -> list[tuple[str, str]]:
    """(stdout, stderr) of each process, all of which must exit with `code`.

    All are read at the same time: a process whose output is not read stops at a full pipe, and the others would wait for it.
    """
    with ThreadPoolExecutor(len(processes)) as pool:
        outputs = list(pool.map(lambda process: process.communicate(timeout=timeout), processes))
    assert [process.returncode for process in processes] == [code] * len(processes), outputs
    return outputs


def kill(*hosts: subprocess.Popen) -> None:
    """Kills the first host, and then the others, as a scheduler does."""
    for host in hosts:
        host.kill()
        host.communicate()


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Waits until `condition` holds or `process` has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.05)


def has_reached(workdir: pathlib.Path, step: int) -> Callable[[], bool]:
    return lambda: any(line["step"] >= step for line in read_metrics(workdir / "metrics.jsonl", "train"))


def last_step(workdir: pathlib.Path) -> int:
    """The last step with a logged loss."""
    return max(step for _, step in losses(workdir))


def losses(workdir: pathlib.Path) -> dict[tuple[str, int], float]:
    """(kind, step) -> loss."""
    lines = [line for kind in ("train", "valid") for line in read_metrics(workdir / "metrics.jsonl", kind)]
    return {(line["kind"], line["step"]): line["loss"] for line in lines}
