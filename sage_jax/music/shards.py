"""Token shards on disk: what preprocessing writes and training maps into memory.

A folder of shards has
  vocabulary.json                 the tokenizer, its fingerprint and the corpus: what the folder is
  shards/00000.npy                the events of some files, one file after another, int16 [M, A]
  shards/00000.json               a record of each of these files, kept or dropped: the shard counts once this is there
  index.json                      where the pieces of each split lie; written last: a folder with an index is complete
  report.json, report.txt         what became of the corpus
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.files import replacing, write_json

FORMAT = 1
VOCABULARY, INDEX, REPORT, LOCK, SHARDS = "vocabulary.json", "index.json", "report.json", "lock", "shards"
FLUSH_SECONDS = 5.0  # the work that a kill can cost
FLUSH_EVENTS = 4_000_000


class TokenShards(Sequence[np.ndarray]):
    """The pieces of one split, each an int16 array [N, A] mapped from disk; `names` and `lengths` are in their order.

    Raises UserError where `folder` is not complete or was made with another tokenizer.
    """

    def __init__(self, folder: str | os.PathLike, split: str, tokenizer):
        self.folder = pathlib.Path(folder)
        vocabulary, index = read_json(self.folder / VOCABULARY), read_json(self.folder / INDEX)
        if vocabulary is None or index is None:
            raise UserError(f"{self.folder} holds no finished token shards; run launch.preprocess with the same --workdir")
        if vocabulary["fingerprint"] != tokenizer.fingerprint:
            difference = first_difference(vocabulary["tokenizer"], tokenizer.to_dict(), "tokenizer")
            raise UserError(f"{self.folder} was made with another vocabulary ({difference}); preprocess into another folder")
        if split not in index["splits"]:
            raise UserError(f"{self.folder} has no split {split!r}; choose one of {', '.join(index['splits'])}")
        places = index["splits"][split]
        self.names: list[str] = places["names"]
        self.lengths = np.array(places["lengths"], np.int64)
        self._numbers, self._starts = places["shards"], places["starts"]
        self._opened: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, piece: int) -> np.ndarray:
        start, length = self._starts[piece], int(self.lengths[piece])
        return self._open(self._numbers[piece])[start : start + length]

    def _open(self, number: int) -> np.ndarray:
        if number not in self._opened:
            path = self.folder / SHARDS / f"{number:05d}.npy"
            try:
                # A plain array over the map: slicing an np.memmap costs several times more.
                self._opened[number] = np.asarray(np.load(path, mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} can't be read ({error}); delete {self.folder} and preprocess again") from error
        return self._opened[number]


def music_fingerprint(folder: str | os.PathLike) -> str | None:
    """A hash of which pieces of what lengths a folder of shards has, and in which splits; None for an unfinished folder."""
    index = read_json(pathlib.Path(folder) / INDEX)
    if index is None:
        return None
    pieces = {split: (places["names"], places["lengths"]) for split, places in sorted(index["splits"].items())}
    return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()[:16]


class ShardWriter:
    """Adds shards to a folder: every file's record and events are on disk a few seconds after `add`.

    As a context manager it writes what is left when the block ends, in whatever way.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder / SHARDS
        self._next = 1 + max((int(path.stem) for path in self.folder.glob("[0-9]*.json")), default=-1)
        self._clear()

    def _clear(self) -> None:
        self._records, self._events, self._length, self._began = [], [], 0, time.monotonic()

    def add(self, record: dict[str, Any], events: np.ndarray | None = None) -> None:
        """Takes the record of a file and, of one that was kept, its events [N, A]."""
        if events is not None:
            record = {**record, "start": self._length, "length": len(events)}
            self._events.append(events)
            self._length += len(events)
        self._records.append(record)
        if self._length > FLUSH_EVENTS or time.monotonic() > self._began + FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last time as one shard."""
        if self._records:
            path = self.folder / f"{self._next:05d}.npy"
            if self._events:
                with replacing(path) as temporary:
                    np.save(temporary, np.concatenate(self._events))
            write_json(path.with_suffix(".json"), self._records)
            self._next += 1
        self._clear()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_) -> None:
        self.flush()


def read_records(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The records of all shards in `folder`, oldest first, each with the number of its 'shard'."""
    for path in sorted((folder / SHARDS).glob("[0-9]*.json")):
        for record in read_json(path) or ():
            yield {**record, "shard": int(path.stem)}


def remove_shards(folder: pathlib.Path, but: set[int]) -> None:
    """Removes the shards that no record in use is in, and what a killed run left half written."""
    for path in (folder / SHARDS).iterdir():
        if not path.stem.isdigit() or int(path.stem) not in but:
            path.unlink()


@contextlib.contextmanager
def claim_folder(folder: pathlib.Path, identity: dict[str, Any]) -> Iterator[None]:
    """Makes `folder`, with `identity` as its vocabulary.json, and keeps other writers out until the block ends.

    Raises UserError where it can't be written, is in use, or holds anything else, be it other shards.
    """
    saved = read_json(folder / VOCABULARY)
    try:
        if saved is None and folder.exists() and set(os.listdir(folder)) - {LOCK, SHARDS}:
            raise UserError(f"{folder} holds other files and no token shards; choose another --workdir or data.shards")
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "w")
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}; choose a folder that you may write to") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
        except BlockingIOError:
            raise UserError(f"another preprocess is writing to {folder}; wait for it, or choose another --workdir") from None
        except OSError:
            pass  # a file system that can't lock: nothing keeps two writers apart there
        if saved is None:
            write_json(folder / VOCABULARY, identity, indent=2)
        elif difference := first_difference(saved, identity):
            raise UserError(f"{folder} holds token shards with {difference}; choose another --workdir, or delete the folder")
        yield


def first_difference(saved: dict, wanted: dict, prefix: str = "") -> str | None:
    """'field A, not B' of the first field that two dictionaries don't agree in, A being what was saved; None without."""
    for field in [*saved, *(wanted.keys() - saved.keys())]:
        old, new, name = saved.get(field), wanted.get(field), f"{prefix}.{field}" if prefix else field
        if isinstance(old, dict) and isinstance(new, dict):
            if difference := first_difference(old, new, name):
                return difference
        elif old != new:
            return f"{name} {old}, not {new}"
    return None


def read_json(path: pathlib.Path) -> Any:
    """What the file holds; None where there is none. Raises UserError for a damaged one."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); delete {path.parent} and preprocess again") from error
