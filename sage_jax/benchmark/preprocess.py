"""Speed of preprocessing on one core: files per second with each reader, parsing's share, and notes per second of each step.

  python -m sage_jax.benchmark.preprocess
  python -m sage_jax.benchmark.preprocess --corpus=folder:my_midi --limit=300
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from sage_jax.environment import describe
from sage_jax.errors import UserError
from sage_jax.music.corpus import list_corpus
from sage_jax.music.events import NoteEvents
from sage_jax.music.grid import to_piece
from sage_jax.music.preprocess import READERS, PreprocessConfig, encode_file
from sage_jax.music.sketch import sketch
from sage_jax.music.symusic_midi import is_installed
from sage_jax.music.workers import Failure, run_tasks


def measure(corpus: str, limit: int, rounds: int, tokenizer: NoteEvents, readers: Sequence[str]) -> dict[str, Any]:
    """Times whole files as preprocessing reads them in a worker, and each step on its own, for `limit` files of `corpus`.

    Files are spread evenly over the corpus; those that the first of `readers` can't use are left out. Readers take turns, round
    after round, at the same files. Everything takes the median of `rounds`.
    """
    files = list_corpus(corpus)
    paths = [path for _, path in files[:: max(1, len(files) // limit)]][:limit]
    usable = set(_read(paths, readers[0], tokenizer))
    if not usable:
        raise UserError(f"--corpus={corpus} has no file that can be used")
    paths = [path for path in paths if path in usable]
    whole = {reader: [] for reader in readers}
    for _ in range(rounds):
        for reader in readers:
            facts = _read(paths, reader, tokenizer).values()
            seconds, parsing = (sum(fact[field] for fact in facts) for field in ("seconds", "parse_seconds"))
            whole[reader].append((len(facts) / seconds, parsing / seconds))
    midis = [READERS[readers[0]](path) for path in paths]
    pieces = [to_piece(midi, tokenizer.ticks_per_quarter) for midi in midis]
    quantized = [tokenizer.quantize(piece) for piece in pieces]
    events = [tokenizer.encode(piece) for piece in quantized]
    notes = sum(len(piece.notes) for piece in quantized)
    steps = {
        "parsed MIDI to piece": _time(lambda midi: to_piece(midi, tokenizer.ticks_per_quarter), midis, rounds),
        "sketch": _time(sketch, pieces, rounds),
        "quantize": _time(tokenizer.quantize, pieces, rounds),
        "encode": _time(tokenizer.encode, quantized, rounds),
        "decode": _time(tokenizer.decode, events, rounds),
    }
    return {
        "files": len(paths),
        "notes": notes,
        "files_per_second": {reader: statistics.median(speed for speed, _ in turns) for reader, turns in whole.items()},
        "slowest": {reader: min(turns)[0] for reader, turns in whole.items()},
        "fastest": {reader: max(turns)[0] for reader, turns in whole.items()},
        "parsing_share": {reader: statistics.median(share for _, share in turns) for reader, turns in whole.items()},
        "notes_per_second": {name: notes / taken for name, taken in steps.items()},
    }


def _read(paths: Sequence[str], reader: str, tokenizer: NoteEvents) -> dict[str, dict[str, Any]]:
    """What a worker says of each file that it could use, by path."""
    answers = run_tasks(functools.partial(encode_file, tokenizer, PreprocessConfig(reader=reader)), paths, workers=1)
    return {paths[task]: answer[0] for task, answer in answers if not isinstance(answer, Failure)}


def _time(step: Callable[[Any], Any], inputs: Sequence[Any], rounds: int) -> float:
    """The median time, in seconds, of `step` over all inputs."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        for value in inputs:
            step(value)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sage_jax.benchmark.preprocess", description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", default="embedded", help="embedded, music21 or folder:PATH (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=100, help="files to read (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions, in which the readers take turns (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        readers = [reader for reader in READERS if reader != "symusic" or is_installed()]
        result = measure(args.corpus, max(1, args.limit), max(1, args.rounds), NoteEvents(), readers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"{result['files']:,} files of {args.corpus}, {result['notes']:,} notes, one core\n")
    print("| step | per second |\n| --- | --- |")
    for reader, speed in result["files_per_second"].items():
        print(
            f"| whole files with {reader}, {result['parsing_share'][reader]:.1%} of it parsing | {speed:.1f} files "
            f"({result['slowest'][reader]:.1f} to {result['fastest'][reader]:.1f}) |"
        )
    for name, speed in result["notes_per_second"].items():
        print(f"| {name} | {speed:,.0f} notes |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
