"""Speed of preprocessing on one core: files per second and share of parsing for each reader, notes per second for each step.

  python -m launch.benchmark_preprocess
  python -m launch.benchmark_preprocess --corpus=folder:my_midi --limit=300
"""

import argparse
import sys

from sage_jax.corpus.benchmark import measure, table
from sage_jax.corpus.preprocess import READERS
from sage_jax.environment import describe
from sage_jax.errors import UserError
from sage_jax.music.symusic_midi import is_installed
from sage_jax.tokenizers.note_events import NoteEvents


def main(argv: list[str]) -> int:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m launch.benchmark_preprocess", description=description)
    parser.add_argument("--corpus", default="embedded", help="embedded, music21 or folder:PATH (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=100, help="files to read (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; each runs all readers (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        readers = [reader for reader in READERS if reader != "symusic" or is_installed()]
        result = measure(args.corpus, max(1, args.limit), max(1, args.rounds), NoteEvents(), readers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    print(f"{result['files']:,} files of {args.corpus}, {result['notes']:,} notes, one core\n\n{table(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
