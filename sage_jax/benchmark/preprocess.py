"""Speed of preprocessing on one core: files per second, pretty_midi's share of it, and notes per second of each step.

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
from sage_jax.music.midi import from_midi, parse_midi
from sage_jax.music.preprocess import PreprocessConfig, encode_file
from sage_jax.music.workers import Failure, run_tasks


def measure(corpus: str, limit: int, rounds: int, tokenizer: NoteEvents) -> dict[str, Any]:
    """Times whole files as preprocessing reads them in a worker, and each step on its own, for `limit` files of `corpus`.

    Files are spread evenly over the corpus; those that can't be used are left out. Steps take the median of `rounds`.
    """
    files = list_corpus(corpus)
    paths = [path for _, path in files[:: max(1, len(files) // limit)]][:limit]
    encode = functools.partial(encode_file, tokenizer, PreprocessConfig())
    answers = run_tasks(encode, paths, workers=1)
    facts = {paths[task]: answer[0] for task, answer in answers if not isinstance(answer, Failure)}
    if not facts:
        raise UserError(f"--corpus={corpus} has no file that can be used")
    seconds = sum(fact["seconds"] for fact in facts.values())
    midis = [parse_midi(path) for path in facts]
    pieces = [from_midi(midi, tokenizer.ticks_per_quarter) for midi in midis]
    quantized = [tokenizer.quantize(piece) for piece in pieces]
    events = [tokenizer.encode(piece) for piece in quantized]
    notes = sum(len(piece.notes) for piece in quantized)
    steps = {
        "pretty_midi to piece": _time(lambda midi: from_midi(midi, tokenizer.ticks_per_quarter), midis, rounds),
        "quantize": _time(tokenizer.quantize, pieces, rounds),
        "encode": _time(tokenizer.encode, quantized, rounds),
        "decode": _time(tokenizer.decode, events, rounds),
    }
    return {
        "files": len(facts),
        "notes": notes,
        "files_per_second": len(facts) / seconds,
        "parsing_share": sum(fact["parse_seconds"] for fact in facts.values()) / seconds,
        "notes_per_second": {name: notes / taken for name, taken in steps.items()},
    }


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
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each step (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        result = measure(args.corpus, max(1, args.limit), max(1, args.rounds), NoteEvents())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"{result['files']:,} files of {args.corpus}, {result['notes']:,} notes, one core\n")
    print("| step | per second |\n| --- | --- |")
    print(f"| whole files, {result['parsing_share']:.1%} of it parsing in pretty_midi | {result['files_per_second']:.1f} files |")
    for name, speed in result["notes_per_second"].items():
        print(f"| {name} | {speed:,.0f} notes |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
