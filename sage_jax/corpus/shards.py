"""Token shards on disk: written by preprocessing, memory-mapped by training.

A shard folder contains
  vocabulary.json                 the tokenizer, its fingerprint and the corpus
  shards/00000.npy                the concatenated events of some files, int16 [M, A]
  shards/00000.jsonl              a header with the tokenizer's fingerprint and the length M, then one line per file with its
                                  record, kept or dropped; written after the events, so it marks the shard as complete
  index.json                      the shards, and the location of each split's pieces; written last, so it marks the folder as
                                  complete
  report.json, report.txt         the report of preprocessing
"""

import bisect
import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sage_jax.corpus.splits import subsample_evenly
from sage_jax.errors import UserError
from sage_jax.files import LOCK, claim, replacing, write_json

FORMAT = 2  # version of the records; version 1 had fewer counters and read some files differently
VOCABULARY, INDEX, REPORT, SHARDS = "vocabulary.json", "index.json", "report.json", "shards"
RECORDS = ".jsonl"
FILES_PER_SHARD = 128  # also bounds, per worker, the work lost by a kill and the events held in memory
MAX_OPEN_SHARDS = 128  # each holds a file descriptor; processes are often limited to 256


class TokenShards(Sequence[np.ndarray]):
    """The pieces of one split, each a memory-mapped int16 array [N, A].

    names: file names of the pieces. lengths: int64 [pieces], their number of events.
    most: so many pieces, spread evenly over the split; 0 for all.
    Raises UserError if `folder` is incomplete, was made with another tokenizer, or does not match its index.
    """

    def __init__(self, folder: str | os.PathLike, split: str, tokenizer, most: int = 0):
        self.folder = pathlib.Path(folder)
        vocabulary, index = read_json(self.folder / VOCABULARY), read_json(self.folder / INDEX)
        if vocabulary is None or index is None:
            raise UserError(f"{self.folder} holds no finished token shards; run launch.preprocess with the same --workdir")
        if vocabulary["fingerprint"] != tokenizer.fingerprint:
            difference = first_difference(vocabulary["tokenizer"], tokenizer.to_dict(), "tokenizer")
            raise UserError(f"{self.folder} was made with another vocabulary ({difference}); preprocess into another folder")
        if fault := find_fault(self.folder, index, tokenizer.fingerprint):
            raise UserError(f"{fault}; then run launch.preprocess with the same --workdir, which repairs the folder")
        if split not in index["splits"]:
            raise UserError(f"{self.folder} has no split {split!r}; choose one of {', '.join(index['splits'])}")
        pieces = index["splits"][split]
        kept = np.array(subsample_evenly(range(len(pieces["names"])), most or len(pieces["names"])), np.int64)
        self.names: list[str] = [pieces["names"][piece] for piece in kept]
        self.lengths, self._numbers, self._starts = (
            np.array(pieces[field], np.int64)[kept] for field in ("lengths", "shards", "starts")
        )
        self._opened: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, piece: int) -> np.ndarray:
        start, length = int(self._starts[piece]), int(self.lengths[piece])
        return self._open(int(self._numbers[piece]))[start : start + length]

    def _open(self, number: int) -> np.ndarray:
        events = self._opened.get(number)
        if events is None:
            path = shard_path(self.folder, number)
            try:
                # A plain array over the map, since slicing an np.memmap is several times slower.
                events = np.asarray(np.load(path, mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} can't be read ({error}); delete {self.folder} and preprocess again") from error
            if len(self._opened) >= MAX_OPEN_SHARDS:
                self._opened = {}  # arrays in use keep their map open
            self._opened[number] = events
        return events


def shards_with_pieces(folder: str | os.PathLike, split: str, tokenizer, most: int = 0) -> TokenShards:
    """The shards as `TokenShards` has them. Raises UserError also for a split without pieces."""
    shards = TokenShards(folder, split, tokenizer, most)
    if not len(shards):
        raise UserError(f"{folder} has no piece in its {split} split; the corpus needs at least three different pieces")
    return shards


def shard_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The path of a shard's events. Its records have the same path with the suffix RECORDS."""
    return folder / SHARDS / f"{number:05d}.npy"


def find_fault(folder: pathlib.Path, index: dict[str, Any], fingerprint: str) -> str | None:
    """A message about the first mismatch between the shards in `folder` and its index, or None.

    Reads only file headers.
    """
    expected = {int(number): rows for number, rows in index["shards"].items()}
    wanted = {shard_path(folder, number).with_suffix(RECORDS).name for number in expected}
    wanted |= {shard_path(folder, number).name for number, rows in expected.items() if rows}
    found = {name for name in os.listdir(folder / SHARDS) if not name.startswith(".")} if (folder / SHARDS).is_dir() else set()
    for names, text in ((wanted - found, "is missing"), (found - wanted, "is not in its index.json")):
        if names:
            more = f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
            return f"{folder / SHARDS / min(names)} {text}{more}"
    for number, rows in expected.items():
        path = shard_path(folder, number)
        header = read_header(path)
        if header["fingerprint"] != fingerprint:
            return wrong_tokenizer(path, header, fingerprint)
        if header["rows"] != rows:
            return f"{path.with_suffix(RECORDS)} states {header['rows']:,} events, not {rows:,}"
        if fault := _events_fault(path, rows):
            return fault
    return None


def read_header(path: pathlib.Path) -> dict[str, Any]:
    """The header of the records of the shard at `path`: 'fingerprint' and 'rows', the number of events."""
    with open(path.with_suffix(RECORDS), encoding="utf-8") as lines:
        return _parse(lines.readline(), path.with_suffix(RECORDS))


def wrong_tokenizer(path: pathlib.Path, header: dict[str, Any], fingerprint: str) -> str:
    """The message for a shard with another tokenizer's fingerprint."""
    return f"{path} was written by another tokenizer ({header['fingerprint']}, not {fingerprint}): delete it and its {RECORDS}"


def _events_fault(path: pathlib.Path, rows: int) -> str | None:
    """A message if the events at `path` are unreadable or not `rows` in number; None otherwise."""
    if not rows:
        return None
    try:
        length = len(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        return f"{path} can't be read ({error})"
    return None if length == rows else f"{path} has {length:,} events, not {rows:,}"


def music_fingerprint(folder: str | os.PathLike) -> str | None:
    """A hash of the names and lengths of the pieces in each split, or None for an incomplete folder."""
    index = read_json(pathlib.Path(folder) / INDEX)
    if index is None:
        return None
    pieces = {split: (entry["names"], entry["lengths"]) for split, entry in sorted(index["splits"].items())}
    return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()[:16]


Record = tuple[dict[str, Any], np.ndarray | None]  # record of a file, and its events [N, A] if it is kept


def write_shard(folder: pathlib.Path, number: int, fingerprint: str, records: Sequence[Record]) -> None:
    """Writes one shard: first its events, then its records, which mark it as complete."""
    path = shard_path(folder, number)
    kept = [events for _, events in records if events is not None]
    rows = 0
    lines = [{"fingerprint": fingerprint, "rows": sum(map(len, kept))}]
    for record, events in records:
        if events is not None:
            record = {**record, "start": rows, "length": len(events)}
            rows += len(events)
        lines.append(record)
    if kept:
        with replacing(path) as temporary:
            np.save(temporary, np.concatenate(kept))
    with replacing(path.with_suffix(RECORDS)) as temporary:
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


class ShardWriter:
    """Writes each block of FILES_PER_SHARD consecutive tasks as one shard when all of its records have arrived.

    So the shards are independent of the order in which tasks finish. At the end of its `with` block, even after an exception,
    it writes the incomplete shards.
    """

    def __init__(self, folder: pathlib.Path, first: int, fingerprint: str, num_tasks: int):
        self.folder, self.first, self.fingerprint, self.num_tasks = folder, first, fingerprint, num_tasks
        self._unfinished: dict[int, dict[int, Record]] = {}

    def add(self, task: int, record: Record) -> None:
        """Adds the record of a task."""
        shard = task // FILES_PER_SHARD
        records = self._unfinished.setdefault(shard, {})
        records[task] = record
        if len(records) == min(FILES_PER_SHARD, self.num_tasks - shard * FILES_PER_SHARD):
            self._write(shard)

    def _write(self, shard: int) -> None:
        records = [record for _, record in sorted(self._unfinished.pop(shard).items())]
        write_shard(self.folder, self.first + shard, self.fingerprint, records)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_) -> None:
        for shard in sorted(self._unfinished):
            self._write(shard)


def next_shard_number(folder: pathlib.Path) -> int:
    """One more than the highest shard number in `folder`, including incomplete shards."""
    return 1 + max((int(path.stem) for path in (folder / SHARDS).glob("[0-9]*.*")), default=-1)


def read_records(folder: pathlib.Path, fingerprint: str, first: int = 0) -> Iterator[dict[str, Any]]:
    """The records of all shards in `folder` with intact events, oldest shard first. Each record gets its 'shard' number.

    first: number of the first shard to read. Raises UserError for a shard that another tokenizer has written.
    """
    numbers = sorted(int(path.stem) for path in (folder / SHARDS).glob(f"[0-9]*{RECORDS}"))
    for number in numbers[bisect.bisect_left(numbers, first) :]:
        path = shard_path(folder, number)
        header = read_header(path)
        if header["fingerprint"] != fingerprint:
            raise UserError(f"{wrong_tokenizer(path, header, fingerprint)}; then run the same command to read its files again")
        if _events_fault(path, header["rows"]):
            continue
        with open(path.with_suffix(RECORDS), encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                yield {**_parse(line, path), "shard": number}


def remove_shards(folder: pathlib.Path, keep: set[int]) -> None:
    """Removes all shards except the numbers in `keep`, and temporary files of killed runs."""
    for path in (folder / SHARDS).iterdir():
        if not path.stem.isdigit() or int(path.stem) not in keep or path.suffix not in (".npy", RECORDS):
            path.unlink()


@contextlib.contextmanager
def lock_folder(folder: pathlib.Path, identity: dict[str, Any]) -> Iterator[None]:
    """Creates `folder` with `identity` as its vocabulary.json, and locks it for other writers until the block ends.

    Raises UserError if the folder cannot be written, is in use, or holds other files or shards with another identity.
    """
    saved = read_json(folder / VOCABULARY)
    with contextlib.ExitStack() as stack:
        try:
            if saved is None and folder.exists() and set(os.listdir(folder)) - {LOCK, SHARDS}:
                raise UserError(f"{folder} holds files other than token shards; choose another --workdir or data.shards")
            (folder / SHARDS).mkdir(parents=True, exist_ok=True)
            acquired = stack.enter_context(claim(folder, wait=False))
        except OSError as error:
            raise UserError(f"can't write to {folder}: {error.strerror}; choose a folder that you may write to") from error
        if not acquired:
            raise UserError(f"another preprocess is writing to {folder}; wait for it, or choose another --workdir")
        if saved is None:
            write_json(folder / VOCABULARY, identity, indent=2)
        elif difference := first_difference(saved, identity):
            raise UserError(f"{folder} holds token shards with {difference}; choose another --workdir, or delete the folder")
        yield


def first_difference(saved: dict, wanted: dict, prefix: str = "") -> str | None:
    """'FIELD OLD, not NEW' for the first field that differs, recursively, or None. OLD is the value in `saved`."""
    for field in [*saved, *(wanted.keys() - saved.keys())]:
        old, new, name = saved.get(field), wanted.get(field), f"{prefix}.{field}" if prefix else field
        if isinstance(old, dict) and isinstance(new, dict):
            if difference := first_difference(old, new, name):
                return difference
        elif old != new:
            return f"{name} {old}, not {new}"
    return None


def read_json(path: pathlib.Path) -> Any:
    """The JSON content of a file, or None if it does not exist. Raises UserError for a damaged file."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return _parse(text, path)


def _parse(text: str, path: pathlib.Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(f"{path} can't be read ({error}); delete {path.parent} and preprocess again")
