"""Token shards on disk: what preprocessing writes and training maps into memory.

A folder of shards has
  vocabulary.json                 the tokenizer, its fingerprint and the corpus: what the folder is
  shards/00000.npy                the events of some files, one file after another, int16 [M, A]
  shards/00000.jsonl              the tokenizer's fingerprint and the length M, then, line by line, a record of each of these
                                  files, kept or dropped: the shard counts once this is there
  index.json                      which shards there are, and where the pieces of each split lie; written last: a folder with
                                  an index is complete
  report.json, report.txt         what became of the corpus
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

from sage_jax.errors import UserError
from sage_jax.files import LOCK, claim, replacing, write_json

FORMAT = 2  # of the records beside the shards; 1 counted less of what reading changes, and read other notes
VOCABULARY, INDEX, REPORT, SHARDS = "vocabulary.json", "index.json", "report.json", "shards"
RECORDS = ".jsonl"
FILES_PER_SHARD = 128  # also the work that a kill can cost, for each worker at most, and what is in memory of unfinished shards
MAPS_OPEN = 128  # each takes a file descriptor, of which a process has 256 or 1,024


class TokenShards(Sequence[np.ndarray]):
    """The pieces of one split, each an int16 array [N, A] mapped from disk; `names` and `lengths` are in their order.

    Raises UserError where `folder` is not complete, was made with another tokenizer, or has other shards than its index says.
    """

    def __init__(self, folder: str | os.PathLike, split: str, tokenizer):
        self.folder = pathlib.Path(folder)
        vocabulary, index = read_json(self.folder / VOCABULARY), read_json(self.folder / INDEX)
        if vocabulary is None or index is None:
            raise UserError(f"{self.folder} holds no finished token shards; run launch.preprocess with the same --workdir")
        if vocabulary["fingerprint"] != tokenizer.fingerprint:
            difference = first_difference(vocabulary["tokenizer"], tokenizer.to_dict(), "tokenizer")
            raise UserError(f"{self.folder} was made with another vocabulary ({difference}); preprocess into another folder")
        if fault := find_fault(self.folder, index, tokenizer.fingerprint):
            raise UserError(f"{fault}; then run launch.preprocess with the same --workdir, which mends the folder")
        if split not in index["splits"]:
            raise UserError(f"{self.folder} has no split {split!r}; choose one of {', '.join(index['splits'])}")
        places = index["splits"][split]
        self.names: list[str] = places["names"]
        self.lengths = np.array(places["lengths"], np.int64)
        self._numbers, self._starts = (np.array(places[field], np.int64) for field in ("shards", "starts"))
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
                # A plain array over the map: slicing an np.memmap costs several times more.
                events = np.asarray(np.load(path, mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} can't be read ({error}); delete {self.folder} and preprocess again") from error
            if len(self._opened) >= MAPS_OPEN:
                self._opened = {}  # pieces in use keep their own map
            self._opened[number] = events
        return events


def shard_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where the events of a shard are; its records are beside them."""
    return folder / SHARDS / f"{number:05d}.npy"


def find_fault(folder: pathlib.Path, index: dict[str, Any], fingerprint: str) -> str | None:
    """What the shards in `folder` have that its index does not say, or lack; None where all is as it should be.

    Heads of files are read, no records and no events.
    """
    expected = {int(number): rows for number, rows in index["shards"].items()}
    wanted = {shard_path(folder, number).with_suffix(RECORDS).name for number in expected}
    wanted |= {shard_path(folder, number).name for number, rows in expected.items() if rows}
    found = {name for name in os.listdir(folder / SHARDS) if not name.startswith(".")} if (folder / SHARDS).is_dir() else set()
    for names, text in ((wanted - found, "is missing"), (found - wanted, "is not in its index.json")):
        if names:
            more = f", as {len(names) - 1:,} more" if len(names) > 1 else ""
            return f"{folder / SHARDS / min(names)} {text}{more}"
    for number, rows in expected.items():
        path = shard_path(folder, number)
        head = read_head(path)
        if head["fingerprint"] != fingerprint:
            return foreign(path, head, fingerprint)
        if head["rows"] != rows:
            return f"{path.with_suffix(RECORDS)} tells of {head['rows']:,} events, not {rows:,}"
        if fault := _events_fault(path, rows):
            return fault
    return None


def read_head(path: pathlib.Path) -> dict[str, Any]:
    """The first line of the records of the shard at `path`: 'fingerprint' and 'rows', the number of its events."""
    with open(path.with_suffix(RECORDS), encoding="utf-8") as lines:
        return _parse(lines.readline(), path.with_suffix(RECORDS))


def foreign(path: pathlib.Path, head: dict[str, Any], fingerprint: str) -> str:
    """What is wrong with a shard of another tokenizer."""
    return f"{path} was written by another tokenizer ({head['fingerprint']}, not {fingerprint}): delete it and its {RECORDS}"


def _events_fault(path: pathlib.Path, rows: int) -> str | None:
    if not rows:
        return None
    try:
        length = len(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        return f"{path} can't be read ({error})"
    return None if length == rows else f"{path} has {length:,} events, not {rows:,}"


def music_fingerprint(folder: str | os.PathLike) -> str | None:
    """A hash of which pieces of what lengths a folder of shards has, and in which splits; None for an unfinished folder."""
    index = read_json(pathlib.Path(folder) / INDEX)
    if index is None:
        return None
    pieces = {split: (places["names"], places["lengths"]) for split, places in sorted(index["splits"].items())}
    return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()[:16]


Answer = tuple[dict[str, Any], np.ndarray | None]  # the record of a file and, of one that was kept, its events [N, A]


def write_shard(folder: pathlib.Path, number: int, fingerprint: str, answers: Sequence[Answer]) -> None:
    """Writes the answers as one shard: first its events, then its records, with which it counts."""
    path = shard_path(folder, number)
    kept = [events for _, events in answers if events is not None]
    rows = 0
    lines = [{"fingerprint": fingerprint, "rows": sum(map(len, kept))}]
    for record, events in answers:
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
    """Writes each run of FILES_PER_SHARD tasks as one shard once all of them are answered, in whatever order, so that the
    shards do not depend on it. As a context manager it writes what is left when the block ends, in whatever way.
    """

    def __init__(self, folder: pathlib.Path, first: int, fingerprint: str, num_tasks: int):
        self.folder, self.first, self.fingerprint, self.num_tasks = folder, first, fingerprint, num_tasks
        self._unfinished: dict[int, dict[int, Answer]] = {}

    def add(self, task: int, answer: Answer) -> None:
        """Takes the answer to a task."""
        shard = task // FILES_PER_SHARD
        answers = self._unfinished.setdefault(shard, {})
        answers[task] = answer
        if len(answers) == min(FILES_PER_SHARD, self.num_tasks - shard * FILES_PER_SHARD):
            self._write(shard)

    def _write(self, shard: int) -> None:
        answers = [answer for _, answer in sorted(self._unfinished.pop(shard).items())]
        write_shard(self.folder, self.first + shard, self.fingerprint, answers)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_) -> None:
        for shard in sorted(self._unfinished):
            self._write(shard)


def next_number(folder: pathlib.Path) -> int:
    """The number above those of all shards in `folder`, also half written ones."""
    return 1 + max((int(path.stem) for path in (folder / SHARDS).glob("[0-9]*.*")), default=-1)


def read_records(folder: pathlib.Path, fingerprint: str, first: int = 0) -> Iterator[dict[str, Any]]:
    """The records of all shards in `folder` whose events are there, oldest first, each with the number of its 'shard'.

    first: the number of the first shard to read.

    Raises UserError for a shard that another tokenizer has written.
    """
    numbers = sorted(int(path.stem) for path in (folder / SHARDS).glob(f"[0-9]*{RECORDS}"))
    for number in numbers[bisect.bisect_left(numbers, first) :]:
        path = shard_path(folder, number)
        head = read_head(path)
        if head["fingerprint"] != fingerprint:
            raise UserError(f"{foreign(path, head, fingerprint)}; then the same command reads its files again")
        if _events_fault(path, head["rows"]):
            continue
        with open(path.with_suffix(RECORDS), encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                yield {**_parse(line, path), "shard": number}


def remove_shards(folder: pathlib.Path, but: set[int]) -> None:
    """Removes the shards that no record in use is in, and what a killed run left half written."""
    for path in (folder / SHARDS).iterdir():
        if not path.stem.isdigit() or int(path.stem) not in but or path.suffix not in (".npy", RECORDS):
            path.unlink()


@contextlib.contextmanager
def claim_folder(folder: pathlib.Path, identity: dict[str, Any]) -> Iterator[None]:
    """Makes `folder`, with `identity` as its vocabulary.json, and keeps other writers out until the block ends.

    Raises UserError where it can't be written, is in use, or holds anything else, be it other shards.
    """
    saved = read_json(folder / VOCABULARY)
    with contextlib.ExitStack() as stack:
        try:
            if saved is None and folder.exists() and set(os.listdir(folder)) - {LOCK, SHARDS}:
                raise UserError(f"{folder} holds other files and no token shards; choose another --workdir or data.shards")
            (folder / SHARDS).mkdir(parents=True, exist_ok=True)
            mine = stack.enter_context(claim(folder, wait=False))
        except OSError as error:
            raise UserError(f"can't write to {folder}: {error.strerror}; choose a folder that you may write to") from error
        if not mine:
            raise UserError(f"another preprocess is writing to {folder}; wait for it, or choose another --workdir")
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
