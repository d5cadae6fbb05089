"""MIDI files to token shards: in parallel, resumable after a kill at any moment, with a report."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.corpus import content_hash, list_corpus
from sage_jax.music.events import NoteEvents
from sage_jax.music.grid import to_piece
from sage_jax.music.loss import GridLoss
from sage_jax.music.merge import merge
from sage_jax.music.midi import BadMidi, parse_columns, parse_direct
from sage_jax.music.records import Records
from sage_jax.music.runners import Files, Job, run_locally, run_on_beam
from sage_jax.music.shards import FORMAT, INDEX, REPORT, claim_folder, find_fault, next_number, read_json, read_records
from sage_jax.music.sketch import sketch
from sage_jax.music.symusic_midi import check_installed, parse_symusic
from sage_jax.music.workers import Failure

READERS = {"direct": parse_direct, "pretty_midi": parse_columns, "symusic": parse_symusic}
RUNNERS = ("local", "beam")
BYTES_PER_FILE = 2000  # of memory, with names and messages of two dozen characters


@dataclasses.dataclass(frozen=True)
class PreprocessConfig:
    """What one file may cost, and who reads it. A file that costs more is dropped, with its reason.

    max_events_per_file: notes, rests and changes of tempo and meter. max_memory_mb: address space of a process.
    workers: processes, 0 for one per core. reader: all three read the same. direct is the fastest; pretty_midi, and symusic,
    which is an extra, read what it has made of a file once more, as a check by a third party.
    runner: local, or beam, which is an extra; beam_options: Beam's own, as on its command line.
    """

    max_file_mb: float = 8.0
    max_seconds_per_file: float = 60.0
    max_events_per_file: int = 200_000
    max_memory_mb: int = 4096
    workers: int = 0
    reader: str = "direct"
    runner: str = "local"
    beam_options: str = ""

    def __post_init__(self):
        lows = dict(max_file_mb=1e-3, max_seconds_per_file=1e-3, max_events_per_file=1, max_memory_mb=256, workers=0)
        for field, low in lows.items():
            if not getattr(self, field) >= low:
                raise UserError(f"preprocess.{field} is {getattr(self, field)}; it must be at least {low}")
        for field, names in (("reader", READERS), ("runner", RUNNERS)):
            if getattr(self, field) not in names:
                raise UserError(f"preprocess.{field} is {getattr(self, field)!r}; choose one of {', '.join(names)}")
        if self.beam_options and self.runner != "beam":
            raise UserError("preprocess.beam_options are for preprocess.runner=beam; leave them empty, or set it")


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

    Memory: less than BYTES_PER_FILE for each file of the corpus (1,500 measured, so 2.3 GB for one and a half million), 500 of
    them its row in Records; in addition, until their shard is whole, the events of FILES_PER_SHARD files for each worker and
    one more; and what one worker takes for one file, times the workers.
    """
    if config.reader == "symusic":
        check_installed()
    folder = pathlib.Path(folder).absolute()
    files = list_corpus(corpus)
    stamps = np.fromiter((_stamp(path, config) for _, path in files), "S16", len(files))
    listing = _listing(files, stamps)
    kind, colon, path = corpus.partition(":")
    identity = {
        "format": FORMAT,
        "corpus": kind + colon + (os.path.abspath(os.path.expanduser(path)) if colon else ""),
        "tokenizer": tokenizer.to_dict(),
        "fingerprint": tokenizer.fingerprint,
    }
    with claim_folder(folder, identity):
        index, report = read_json(folder / INDEX), read_json(folder / REPORT)
        if index and report and index["listing"] == listing and not find_fault(folder, index, tokenizer.fingerprint):
            return {**report, "reused": True}
        records = Records([name for name, _ in files])
        records.take_all(read_records(folder, tokenizer.fingerprint), stamps)
        todo = Files(files, stamps, records.unknown())
        if len(todo):
            encode = functools.partial(encode_file, tokenizer, config)
            job = Job(encode, folder, tokenizer.fingerprint, config.max_seconds_per_file, config.max_memory_mb << 20)
            first = next_number(folder)
            if config.runner == "beam":
                run_on_beam(job, todo, first, config.beam_options)
            else:
                run_locally(job, todo, first, config.workers, show_progress)
            records.take_all(read_records(folder, tokenizer.fingerprint, first), stamps)
            if len(missing := records.unknown()):
                raise UserError(f"{len(missing):,} files are in no shard of {folder}; every worker must see it under this path")
        return merge(folder, identity, listing, records)


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


def _listing(files: list[tuple[str, str]], stamps: np.ndarray) -> str:
    """Changes when a file comes, goes or changes."""
    digest = hashlib.sha256(b"[")
    for place, ((name, _), stamp) in enumerate(zip(files, stamps, strict=True)):
        digest.update(f"{', ' * (place > 0)}{(name, stamp.decode())!r}".encode())
    digest.update(b"]")
    return digest.hexdigest()[:16]


def _stamp(path: str, config: PreprocessConfig) -> str:
    """Changes when the file or the limits do, whoever reads it."""
    limits = (config.max_file_mb, config.max_seconds_per_file, config.max_events_per_file, config.max_memory_mb)
    try:
        status = os.stat(path)
        version = (status.st_size, status.st_mtime_ns)
    except OSError:
        version = None
    return _digest(repr((version, limits)).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
