"""Multi-host training: joining the hosts, agreeing on config and errors, and work for the primary host alone.

A host is a process with its own devices. All hosts run the same program on arrays that are sharded over all of them. Each host
reads its own rows of a batch. On a single host the functions here change nothing.
"""

import contextlib
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from sage_jax.config import RunConfig
from sage_jax.environment import code_checksum, describe
from sage_jax.errors import UserError
from sage_jax.training.checksums import text_checksum

AUTO = "auto"
MAX_REASON_BYTES = 1000  # of an error message that hosts exchange


def initialize_distributed(coordinator: str, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins this process to the other hosts. Call it before jax looks up its devices.

    coordinator: HOST:PORT of the primary host; 'auto' on a TPU pod, SLURM, Kubernetes or Open MPI; '' for a single host.
    Raises UserError if the hosts can't be joined.
    """
    if not coordinator:
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT, the address of process 0")
        return
    address = None
    if coordinator != AUTO:
        if num_processes is None or process_id is None:
            raise UserError("--coordinator=HOST:PORT needs --num_processes and --process_id, counted from 0")
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id is {process_id}; with --num_processes={num_processes} "
                f"give a number from 0 to {num_processes - 1}"
            )
        address = coordinator
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # affects CPUs only
    try:
        jax.distributed.initialize(address, num_processes if address else None, process_id if address else None)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--coordinator={coordinator}: the hosts can't be joined ({reason}); see docs/scaling.md") from error


def is_primary() -> bool:
    """Whether this host writes the metrics and prints the output of the run."""
    return jax.process_index() == 0


@contextlib.contextmanager
def raise_together(kind: type[UserError] = UserError) -> Iterator[None]:
    """Runs the block on every host. If it fails on one, every host raises `kind`, which names the host and the reason.

    A single host raises the block's own exception. So does a host whose exception is not a UserError.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    _exchange_failures(failure, kind)


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """Runs the block on the primary host, then on the others. Raises on every host, as `raise_together`, if one fails."""
    if is_primary():
        with raise_together():
            yield
        _exchange_failures(None)
    else:
        _exchange_failures(None)
        with raise_together():
            yield


def max_over_hosts(value: int) -> int:
    """The maximum of `value` over all hosts, each of which must call this."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def _exchange_failures(failure: Exception | None, kind: type[UserError] = UserError) -> None:
    """Gathers the failures of all hosts (None for success), and raises if there is any."""
    if jax.process_count() > 1:
        reason = str(failure) if isinstance(failure, UserError) else f"{type(failure).__name__}: {failure}"
        own = " ".join(reason.split()).encode()[:MAX_REASON_BYTES] if failure else b""
        padded = np.frombuffer(own.ljust(MAX_REASON_BYTES, b"\0"), np.uint8)
        reasons: dict[str, list[str]] = {}
        for host, row in enumerate(np.asarray(multihost_utils.process_allgather(padded), np.uint8)):
            if text := row.tobytes().rstrip(b"\0").decode(errors="ignore"):
                reasons.setdefault(text, []).append(str(host))
        if reasons and (failure is None or isinstance(failure, UserError)):
            raise kind("; ".join(f"host {', '.join(numbers)}: {text}" for text, numbers in reasons.items())) from failure
    if failure is not None:
        raise failure


def check_agreement(run: RunConfig, shards_fingerprint: str | None) -> None:
    """Raises UserError on every host unless all have the same config, code, versions and shards.

    Also raises UserError for config.train.max_minutes, which several hosts do not support.
    """
    if jax.process_count() == 1:
        return
    versions = {name: value for name, value in describe().items() if name not in ("device", "processor", "cores")}
    own = {
        "the config": text_checksum(run.to_dict()),
        "the code of sage_jax": int(code_checksum()[:8], 16),
        "the versions of Python, jax or flax": text_checksum(versions),
        "the shards": zlib.crc32((shards_fingerprint or "").encode()),
    }
    gathered = multihost_utils.process_allgather(np.array(list(own.values()), np.uint32))
    _compare_hosts(list(own), np.asarray(gathered).reshape(-1, len(own)))
    if run.train.max_minutes:  # checked last: here it is the same on every host
        raise UserError(
            "config.train.max_minutes is for a single host, because the clocks of several differ; "
            "set it to 0, and stop the run with SIGTERM"
        )


def _compare_hosts(names: list[str], gathered: np.ndarray) -> None:
    """Raises UserError for the first column of `gathered` [hosts, len(names)] whose rows differ."""
    for name, column in zip(names, gathered.T, strict=True):
        others = np.flatnonzero(column != column[0])
        if len(others):
            raise UserError(
                f"{name} of host {', '.join(map(str, others))} differs from host 0; start every host with the same command, "
                "checkout, environment and shards"
            )
