"""Writing files so that a reader sees the old one or the new one, never half of one; and one writer at a time."""

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

LOCK = "lock"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which takes its place when the block ends without an error.

    What the block wrote is on the disk by then, and the new name when this returns: a power failure leaves the old file or
    the new one, too. Raises UserError, naming the path, where the folder can't be made or written.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        # Not by tempfile, whose files only their owner may read: here the umask applies, as to any new file.
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
    """Writes `value` so that the file is there whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent))


@contextlib.contextmanager
def claim(folder: pathlib.Path, wait: bool) -> Iterator[bool]:
    """Yields whether `folder` is this process's own for the block, among those that ask for it here.

    What another process holds is waited for, or else not had; its claim ends with it, however it ends. On a file system that
    can't lock nothing keeps two apart. Raises OSError where the folder can't be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as handle:
        mine = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = False
        except OSError:
            pass
        yield mine


def _sync(path: pathlib.Path) -> None:
    """Waits until the disk has the contents of a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that can't, such as some for folders
            raise
    finally:
        os.close(handle)
