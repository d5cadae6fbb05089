"""Converts MIDI files to token shards in parallel, with a report. A killed run resumes."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from typing import Any

import numpy as np

from sage_jax.corpus.index import finalize_corpus
from sage_jax.corpus.near_duplicates import minhash
from sage_jax.corpus.record_table import RecordTable
from sage_jax.corpus.runners import FileList, Job, run_locally, run_on_beam
from sage_jax.corpus.shards import FORMAT, INDEX, REPORT, find_fault, lock_folder, next_shard_number, read_json, read_records
from sage_jax.corpus.sources import full_name, list_corpus
from sage_jax.corpus.splits import content_hash
from sage_jax.corpus.workers import Failure
from sage_jax.errors import UserError
from sage_jax.music.midi import BadMidi, parse_direct, parse_pretty_midi
from sage_jax.music.quantization import to_piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.music.symusic_midi import check_installed, parse_symusic
from sage_jax.tokenizers.note_events import NoteEvents

READERS = {"direct": parse_direct, "pretty_midi": parse_pretty_midi, "symusic": parse_symusic}
RUNNERS = ("local", "beam")
BYTES_PER_FILE = 2000  # memory bound per file, for names and messages of about 24 characters


@dataclasses.dataclass(frozen=True)
class PreprocessConfig:
    """Limits per file, and how files are read. A file beyond a limit is dropped and reported with the reason.

    max_file_mb: size of the file. max_seconds_per_file: time to read and encode it.
    max_events_per_file: notes, rests, and tempo and meter changes. max_memory_mb: address space of a worker process.
    workers: number of processes, 0 for one per core.
    reader: 'direct', 'pretty_midi' or 'symusic' (optional package). All give the same result and direct is the fastest. The
    others parse the file that direct has normalized, as an independent check.
    runner: 'local' or 'beam' (optional package). beam_options: Beam's command line options.
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
            raise UserError("preprocess.beam_options are for preprocess.runner=beam; leave them empty or set that runner")


def preprocess(
    corpus: str,
    folder: str | os.PathLike,
    tokenizer: NoteEvents = NoteEvents(),
    config: PreprocessConfig = PreprocessConfig(),
    *,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Writes `corpus` as token shards to `folder` and returns the report.

    corpus: as for `list_corpus`. Files that an earlier run has read are not read again; 'reused' in the report is True if
    nothing was left to do. Raises UserError for an unusable corpus or folder, and if no file can be kept.

    Memory: less than BYTES_PER_FILE per file of the corpus (1,500 bytes measured, 500 of them in the RecordTable), plus the
    events of (workers + 1) * FILES_PER_SHARD files in unfinished shards, plus the memory of the workers.
    """
    if config.reader == "symusic":
        check_installed()
    folder = pathlib.Path(folder).absolute()
    files = list_corpus(corpus)
    stamps = np.fromiter((_file_stamp(path, config) for _, path in files), "S16", len(files))
    listing = _listing_hash(files, stamps)
    identity = {
        "format": FORMAT,
        "corpus": full_name(corpus),
        "tokenizer": tokenizer.to_dict(),
        "fingerprint": tokenizer.fingerprint,
    }
    with lock_folder(folder, identity):
        index, report = read_json(folder / INDEX), read_json(folder / REPORT)
        if index and report and index["listing"] == listing and not find_fault(folder, index, tokenizer.fingerprint):
            return {**report, "reused": True}
        records = RecordTable([name for name, _ in files])
        records.update(read_records(folder, tokenizer.fingerprint), stamps)
        todo = FileList(files, stamps, records.missing())
        if len(todo):
            encode = functools.partial(encode_file, tokenizer, config)
            job = Job(encode, folder, tokenizer.fingerprint, config.max_seconds_per_file, config.max_memory_mb << 20)
            first = next_shard_number(folder)
            if config.runner == "beam":
                run_on_beam(job, todo, first, config.beam_options)
            else:
                run_locally(job, todo, first, config.workers, show_progress)
            records.update(read_records(folder, tokenizer.fingerprint, first), stamps)
            if len(missing := records.missing()):
                raise UserError(f"{len(missing):,} files are in no shard of {folder}; all workers must access this path")
        return finalize_corpus(folder, identity, listing, records)


def encode_file(tokenizer: NoteEvents, config: PreprocessConfig, path: str) -> tuple[dict[str, Any], np.ndarray] | Failure:
    """Reads and tokenizes a file in a worker. Returns its record and events, int16 [N, A], or a Failure."""
    began = time.perf_counter()
    loss = QuantizationStats()
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
        return Failure("too_long", f"has {len(piece.notes):,} notes, above the limit of {config.max_events_per_file:,}")
    quantized = tokenizer.quantize(piece, loss)
    events = tokenizer.encode(quantized)
    if len(events) > config.max_events_per_file:
        return Failure("too_long", f"has {len(events):,} events, above the limit of {config.max_events_per_file:,}")
    record = {
        "notes": len(quantized.notes),
        "bars": quantized.num_bars,
        "hash": content_hash(piece),
        "sketch": minhash(piece),
        "digest": _short_hash(events.tobytes()),
        "loss": vars(loss),
        "parse_seconds": parsed - began,
    }
    return {**record, "seconds": time.perf_counter() - began}, events


def _listing_hash(files: list[tuple[str, str]], stamps: np.ndarray) -> str:
    """A hash of the names and stamps of all files."""
    digest = hashlib.sha256(b"[")
    for index, ((name, _), stamp) in enumerate(zip(files, stamps, strict=True)):
        digest.update(f"{', ' * (index > 0)}{(name, stamp.decode())!r}".encode())
    digest.update(b"]")
    return digest.hexdigest()[:16]


def _file_stamp(path: str, config: PreprocessConfig) -> str:
    """A hash of the file's size, modification time and limits. It is independent of the reader."""
    limits = (config.max_file_mb, config.max_seconds_per_file, config.max_events_per_file, config.max_memory_mb)
    try:
        status = os.stat(path)
        version = (status.st_size, status.st_mtime_ns)
    except OSError:
        version = None
    return _short_hash(repr((version, limits)).encode())


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
