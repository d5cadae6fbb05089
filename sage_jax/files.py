"""Atomic file writes, and a lock that gives one process at a time ownership of a folder."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Any

from sage_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]  # the checkout; site-packages for an installed wheel, which has no launch/
LOCK = "lock"  # file name


def user_cache() -> pathlib.Path:
    """The folder of this user's caches: $XDG_CACHE_HOME, or ~/.cache."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the folder of `path`; it replaces `path` if the block ends without an error.

    The contents are synced before the rename and the folder after it, so a power failure leaves the old file or the new one.
    Raises UserError, naming the path, if the folder can't be created or written.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        # tempfile would make the file readable by its owner alone. Here the umask applies, as for any new file.
        os.close(os.open(candidate, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary = candidate
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose a folder that you may write to") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any, indent: int | None = None) -> None:
    """Writes `value` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent))


def evict(folder: pathlib.Path, max_bytes: int) -> None:
    """Deletes the files of a cache that were used least recently, until those in `folder` itself have at most `max_bytes`.

    Does nothing where the folder is missing or can't be read.
    """
    with contextlib.suppress(OSError):  # another process may delete the same files
        entries = [entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False) and entry.name[0] != "."]
        found = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries]
        total = sum(file.st_size for file, _ in found)
        if total > max_bytes:
            for file, path in sorted(found, key=lambda item: max(item[0].st_mtime_ns, item[0].st_atime_ns)):
                os.unlink(path)
                total -= file.st_size
                if total <= max_bytes:
                    break


@contextlib.contextmanager
def claim(folder: pathlib.Path, wait: bool) -> Iterator[bool]:
    """Locks `folder` for the block among all processes that use `claim`; yields whether this process got the lock.

    wait: wait for another holder; otherwise yield False. A lock ends with its process, even after a kill. A file system
    without locks grants every claim. Raises OSError if the folder can't be created or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as handle:
        acquired = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            acquired = False
        except OSError:  # this file system has no locks
            pass
        yield acquired


def _sync(path: pathlib.Path) -> None:
    """Flushes the contents of a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't sync folders
            raise
    finally:
        os.close(handle)
