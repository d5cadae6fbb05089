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
LONGEST_REASON = 1000  # bytes
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
def together(kind: type[UserError] = UserError) -> Iterator[None]:
    """The block, on every host at a time. Where it fails on one, every host raises `kind`, which says which host and why.

    A host alone, and one whose own failure is a defect and no UserError, raises what the block has raised.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    _agree(failure, kind)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The block, done by the first host before the others do it. Raises on every host, as `together`, where it fails on one."""
    if is_first():
        with together():
            yield
        _agree(None)
    else:
        _agree(None)
        with together():
            yield


def largest(value: int) -> int:
    """The largest of the values that the hosts call this with."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def _agree(failure: Exception | None, kind: type[UserError] = UserError) -> None:
    """Exchanges the failures of all hosts, None where there is none, and raises where there is any."""
    if jax.process_count() > 1:
        reason = str(failure) if isinstance(failure, UserError) else f"{type(failure).__name__}: {failure}"
        mine = " ".join(reason.split()).encode()[:LONGEST_REASON] if failure else b""
        padded = np.frombuffer(mine.ljust(LONGEST_REASON, b"\0"), np.uint8)
        reasons: dict[str, list[str]] = {}
        for host, row in enumerate(np.asarray(multihost_utils.process_allgather(padded), np.uint8)):
            if text := row.tobytes().rstrip(b"\0").decode(errors="ignore"):
                reasons.setdefault(text, []).append(str(host))
        if reasons and (failure is None or isinstance(failure, UserError)):
            raise kind("; ".join(f"host {', '.join(numbers)}: {text}" for text, numbers in reasons.items())) from failure
    if failure is not None:
        raise failure


def check_agreement(run: RunConfig, music: str) -> None:
    """Raises UserError, on every host, where they were started with other configs, code, versions or shards, or can't agree.

    music: the fingerprint of the shards.
    """
    if jax.process_count() == 1:
        return
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
    if run.train.max_minutes:  # now that it is the same on all of them
        raise UserError(
            "config.train.max_minutes is for one host, because the clocks of several differ; set it to 0, and let SIGTERM end the run"
        )


@functools.cache
def _code_digest() -> int:
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return int.from_bytes(digest.digest()[:4], "little")

