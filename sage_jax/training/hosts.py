"""Many hosts as one: how they find each other, what they must agree on, and what only the first one does.

Each host is a process with devices of its own. All run the same program on arrays that are spread over all of them; each reads
its own rows of a batch. On one host everything here does nothing.
"""

import contextlib
import functools
import hashlib
import pathlib
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from sage_jax.environment import describe
from sage_jax.errors import UserError
from sage_jax.training.config import RunConfig
from sage_jax.training.digest import text_digest

AUTO = "auto"
PACKAGE = pathlib.Path(__file__).parents[1]


def join(coordinator: str, num_hosts: int | None = None, host: int | None = None) -> None:
    """Makes this process one of many; to be called before anything asks for devices.

    coordinator: HOST:PORT of the first one; 'auto' where a TPU pod, SLURM, Kubernetes or Open MPI tells; '' for one host alone.
    Raises UserError where the others can't be found.
    """
    if not coordinator:
        if num_hosts is not None or host is not None:
            raise UserError("--num_hosts and --host need --coordinator=HOST:PORT, the first host's address")
        return
    explicit = {}
    if coordinator != AUTO:
        if num_hosts is None or host is None:
            raise UserError("--coordinator=HOST:PORT needs --num_hosts and --host, this one's number from 0 on")
        if not 0 <= host < num_hosts:
            raise UserError(f"--host is {host}; with --num_hosts={num_hosts} give a number from 0 to {num_hosts - 1}")
        explicit = dict(coordinator_address=coordinator, num_processes=num_hosts, process_id=host)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of the CPU alone
    try:
        jax.distributed.initialize(**explicit)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--coordinator={coordinator}: the hosts can't be joined ({reason}); see launch/pods.md") from error


def is_first() -> bool:
    """Whether this host is the one that writes what is written once."""
    return jax.process_index() == 0


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The block, done by the first host before the others do it."""
    if not is_first():
        multihost_utils.sync_global_devices("the first one is through")
    yield
    if is_first() and jax.process_count() > 1:
        multihost_utils.sync_global_devices("the first one is through")


def check_agreement(run: RunConfig, music: str) -> None:
    """Raises UserError, on every host, where they were started with other configs, code, versions or shards, or can't agree.

    music: the fingerprint of the shards.
    """
    if jax.process_count() == 1:
        return
    if run.train.max_minutes:
        raise UserError(
            "config.train.max_minutes is for one host, because the clocks of several differ; set it to 0, and let SIGTERM end the run"
        )
    versions = {name: value for name, value in describe().items() if name not in ("device", "processor", "cores")}
    mine = {
        "the config": text_digest(run.to_dict()),
        "the code of sage_jax": _code_digest(),
        "the versions of Python, jax or flax": text_digest(versions),
        "the shards": zlib.crc32(music.encode()),
    }
    numbers = multihost_utils.process_allgather(np.array(list(mine.values()), np.uint32))
    for what, column in zip(mine, np.asarray(numbers).reshape(-1, len(mine)).T, strict=True):
        others = np.flatnonzero(column != column[0])
        if len(others):
            raise UserError(
                f"{what} of host {', '.join(map(str, others))} is not that of host 0; start every host with the same command, "
                "checkout, environment and shards"
            )


@functools.cache
def _code_digest() -> int:
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return int.from_bytes(digest.digest()[:4], "little")

