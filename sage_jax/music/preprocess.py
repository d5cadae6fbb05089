"""MIDI files to token shards: in parallel, resumable after a kill at any moment, with a report."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from typing import Any

import numpy as np
from rich.progress import track

from sage_jax.errors import UserError
from sage_jax.files import replacing, write_json
from sage_jax.music.corpus import SPLITS, assign_splits, content_hash, find_strays, list_corpus
from sage_jax.music.events import NoteEvents
from sage_jax.music.grid import to_piece
from sage_jax.music.loss import GridLoss
from sage_jax.music.midi import BadMidi, parse_columns
from sage_jax.music.report import format_report, make_report
from sage_jax.music.shards import (
    FORMAT,
    INDEX,
    REPORT,
    ShardWriter,
    claim_folder,
    read_json,
    read_records,
    remove_shards,
)
from sage_jax.music.sketch import members, near_duplicates, sketch
from sage_jax.music.symusic_midi import check_installed, parse_symusic
from sage_jax.music.workers import Failure, run_tasks

READERS = {"pretty_midi": parse_columns, "symusic": parse_symusic}


@dataclasses.dataclass(frozen=True)
class PreprocessConfig:
    """What one file may cost, and who reads it. A file that costs more is dropped, with its reason.

    max_events_per_file: notes, rests and changes of tempo and meter. max_memory_mb: address space of a process.
    workers: processes, 0 for one per core. reader: pretty_midi, or symusic, which is an extra and much faster; they differ in
    a few notes of few files, as symusic_midi.py says, so what one has read is not read again for the other.
    """

    max_file_mb: float = 8.0
    max_seconds_per_file: float = 60.0
    max_events_per_file: int = 200_000
    max_memory_mb: int = 4096
    workers: int = 0
    reader: str = "pretty_midi"

    def __post_init__(self):
        lows = dict(max_file_mb=1e-3, max_seconds_per_file=1e-3, max_events_per_file=1, max_memory_mb=256, workers=0)
        for field, low in lows.items():
            if not getattr(self, field) >= low:
                raise UserError(f"preprocess.{field} is {getattr(self, field)}; it must be at least {low}")
        if self.reader not in READERS:
            raise UserError(f"preprocess.reader is {self.reader!r}; choose one of {', '.join(READERS)}")


def preprocess(
    corpus: str,
    folder: str | os.PathLike,
    tokenizer: NoteEvents,
    config: PreprocessConfig = PreprocessConfig(),
    *,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Writes `corpus` as token shards to `folder` and returns the report; files that are done already are not read again.

    'reused' in the report says that nothing was left to do. Raises UserError for a corpus or a folder that won't do, and
    where no file can be kept.
    """
    if config.reader == "symusic":
        check_installed()
    folder = pathlib.Path(folder).absolute()
    files = list_corpus(corpus)
    stamps = {name: _stamp(path, config) for name, path in files}
    listing = _digest(repr(sorted(stamps.items())).encode())
    kind, colon, path = corpus.partition(":")
    identity = {
        "format": FORMAT,
        "corpus": kind + colon + (os.path.abspath(os.path.expanduser(path)) if colon else ""),
        "tokenizer": tokenizer.to_dict(),
        "fingerprint": tokenizer.fingerprint,
    }
    with claim_folder(folder, identity):
        index, report = read_json(folder / INDEX), read_json(folder / REPORT)
        if index and report and index["listing"] == listing:
            return {**report, "reused": True}
        records = _usable_records(folder, stamps)
        todo = [(name, path) for name, path in files if name not in records]
        encode = functools.partial(encode_file, tokenizer, config)
        done = run_tasks(
            encode,
            [path for _, path in todo],
            workers=config.workers,
            max_seconds=config.max_seconds_per_file,
            max_bytes=config.max_memory_mb << 20,
        )
        with ShardWriter(folder) as writer:
            for task, answer in track(done, "MIDI to tokens", len(todo), disable=not (todo and show_progress)):
                name, path = todo[task]
                writer.add(*_record(name, path, stamps[name], answer))
        records = _usable_records(folder, stamps)
        return _finish(folder, identity, listing, [records[name] for name, _ in files])


def encode_file(tokenizer: NoteEvents, config: PreprocessConfig, path: str) -> tuple[dict[str, Any], np.ndarray] | Failure:
    """What is to be known of the file at `path` and its events, or why it can't be used. Runs in a worker."""
    began = time.perf_counter()
    loss = GridLoss()
    try:
        midi = READERS[config.reader](path, max_bytes=int(config.max_file_mb * 2**20))
        parsed = time.perf_counter()
        piece = to_piece(midi, tokenizer.ticks_per_quarter, loss=loss)
    except BadMidi as error:
        return Failure(error.reason, str(error))
    except (ValueError, OverflowError) as error:
        return Failure("invalid", str(error))
    if not len(piece.notes):
        return Failure("no_notes", "has no notes")
    if len(piece.notes) > config.max_events_per_file:
        return Failure("too_long", f"has {len(piece.notes):,} notes, over the limit of {config.max_events_per_file:,}")
    quantized = tokenizer.quantize(piece, loss)
    events = tokenizer.encode(quantized)
    if len(events) > config.max_events_per_file:
        return Failure("too_long", f"has {len(events):,} events, over the limit of {config.max_events_per_file:,}")
    facts = {
        "notes": len(quantized.notes),
        "bars": quantized.num_bars,
        "hash": content_hash(piece),
        "sketch": sketch(piece),
        "digest": _digest(events.tobytes()),
        "loss": vars(loss),
        "parse_seconds": parsed - began,
    }
    return {**facts, "seconds": time.perf_counter() - began}, events


def _record(name: str, path: str, stamp: str, answer: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    if isinstance(answer, Failure):
        message = answer.message.removeprefix(path).lstrip(": ")
        return {"name": name, "stamp": stamp, "reason": answer.reason, "message": message}, None
    facts, events = answer
    return {"name": name, "stamp": stamp, **facts}, events


def _usable_records(folder: pathlib.Path, stamps: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By name, the records of files that are still what they were; those of an earlier version have no sketch, and won't do."""
    return {
        record["name"]: record
        for record in read_records(folder)
        if record["stamp"] == stamps.get(record["name"]) and ("sketch" in record or "reason" in record)
    }


def _finish(folder: pathlib.Path, identity: dict, listing: str, records: list[dict]) -> dict[str, Any]:
    """Writes the report and the index, and removes the shards of files that are gone or have changed."""
    kept, copies = [], {}
    first: dict[str, str] = {}
    for record in records:
        if "reason" not in record:
            original = first.setdefault(record["digest"], record["name"])
            if original == record["name"]:
                kept.append(record)
            else:
                copies[record["name"]] = original
    split_of = assign_splits([record["hash"] for record in kept])
    found = [split_of[record["hash"]] for record in kept]
    groups = near_duplicates([record["sketch"] for record in kept])
    strays = find_strays(found, groups.tolist())
    splits = {
        split: [record for piece, record in enumerate(kept) if found[piece] == split and piece not in strays] for split in SPLITS
    }
    names = [record["name"] for record in kept]
    near = {
        "groups": [[names[piece] for piece in group] for group in members(groups)],
        "left_out": {names[piece]: {"split": found[piece], "like": names[other]} for piece, other in strays.items()},
    }
    report = make_report(identity, records, splits, copies, near)
    write_json(folder / REPORT, report, indent=2)
    with replacing(folder / "report.txt") as temporary:
        temporary.write_text(format_report(report))
    if not kept:
        raise UserError(f"data.corpus: no file of {identity['corpus']} can be used; {folder / 'report.txt'} says why of each")
    places = {
        split: {f"{field}s": [record[field] for record in pieces] for field in ("name", "shard", "start", "length")}
        for split, pieces in splits.items()
    }
    write_json(folder / INDEX, {"listing": listing, "splits": places})
    remove_shards(folder, but={record["shard"] for record in records})
    return {**report, "reused": False}


def _stamp(path: str, config: PreprocessConfig) -> str:
    """Changes when the file or the limits do, whoever reads it."""
    limits = (config.max_file_mb, config.max_seconds_per_file, config.max_events_per_file, config.max_memory_mb, 0)
    try:
        status = os.stat(path)
        version = (status.st_size, status.st_mtime_ns)
    except OSError:
        version = None
    return _digest(repr((version, limits)).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
