"""Speed of preprocessing on one core: whole files by reader, and each step alone."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from sage_jax.corpus.near_duplicates import minhash
from sage_jax.corpus.preprocess import READERS, PreprocessConfig, encode_file
from sage_jax.corpus.sources import list_corpus
from sage_jax.corpus.workers import Failure, run_tasks
from sage_jax.errors import UserError
from sage_jax.music.quantization import to_piece
from sage_jax.tokenizers.note_events import NoteEvents


def measure(corpus: str, limit: int, rounds: int, tokenizer: NoteEvents, readers: Sequence[str]) -> dict[str, Any]:
    """Times whole files, read in a worker as in preprocessing, and each step alone, for `limit` files of `corpus`.

    The files are evenly spaced in the corpus; files that the first of `readers` cannot use are skipped. Each round runs all
    readers on the same files. All times are medians over `rounds`.
    """
    files = list_corpus(corpus)
    paths = [path for _, path in files[:: max(1, len(files) // limit)]][:limit]
    usable = set(_records(paths, readers[0], tokenizer))
    if not usable:
        raise UserError(f"--corpus={corpus} has no usable file")
    paths = [path for path in paths if path in usable]
    timings: dict[str, list[tuple[float, float]]] = {reader: [] for reader in readers}  # (files per second, share of parsing)
    for _ in range(rounds):
        for reader in readers:
            records = _records(paths, reader, tokenizer).values()
            seconds, parsing = (sum(record[field] for record in records) for field in ("seconds", "parse_seconds"))
            timings[reader].append((len(records) / seconds, parsing / seconds))
    midis = [READERS[readers[0]](path) for path in paths]
    pieces = [to_piece(midi, tokenizer.ticks_per_quarter) for midi in midis]
    quantized = [tokenizer.quantize(piece) for piece in pieces]
    events = [tokenizer.encode(piece) for piece in quantized]
    notes = sum(len(piece.notes) for piece in quantized)
    steps = {
        "parsed MIDI to piece": _time(lambda midi: to_piece(midi, tokenizer.ticks_per_quarter), midis, rounds),
        "minhash": _time(minhash, pieces, rounds),
        "quantize": _time(tokenizer.quantize, pieces, rounds),
        "encode": _time(tokenizer.encode, quantized, rounds),
        "decode": _time(tokenizer.decode, events, rounds),
    }
    return {
        "files": len(paths),
        "notes": notes,
        "files_per_second": {reader: statistics.median(speed for speed, _ in rows) for reader, rows in timings.items()},
        "slowest": {reader: min(rows)[0] for reader, rows in timings.items()},
        "fastest": {reader: max(rows)[0] for reader, rows in timings.items()},
        "parsing_share": {reader: statistics.median(share for _, share in rows) for reader, rows in timings.items()},
        "notes_per_second": {name: notes / seconds for name, seconds in steps.items()},
    }


def _records(paths: Sequence[str], reader: str, tokenizer: NoteEvents) -> dict[str, dict[str, Any]]:
    """The records of the usable files, by path, read in one worker."""
    results = run_tasks(functools.partial(encode_file, tokenizer, PreprocessConfig(reader=reader)), paths, workers=1)
    return {paths[task]: result[0] for task, result in results if not isinstance(result, Failure)}


def _time(step: Callable[[Any], Any], inputs: Sequence[Any], rounds: int) -> float:
    """The median time of `step` over all inputs, in seconds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for value in inputs:
            step(value)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def table(result: dict[str, Any]) -> str:
    """The result of `measure` as a Markdown table."""
    rows = ["| step | per second |", "| --- | --- |"]
    for reader, speed in result["files_per_second"].items():
        rows.append(
            f"| whole files with {reader} ({result['parsing_share'][reader]:.1%} parsing) | {speed:.1f} files "
            f"({result['slowest'][reader]:.1f} to {result['fastest'][reader]:.1f}) |"
        )
    rows += [f"| {name} | {speed:,.0f} notes |" for name, speed in result["notes_per_second"].items()]
    return "\n".join(rows)
