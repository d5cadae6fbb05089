"""Measures the cost of an evaluation without decoding: scores, statistics, memorization, intervals, and peak memory.

  python -m launch.benchmark_evaluation                  2,000 prompts of the embedded corpus, 4 samples of each
  python -m launch.benchmark_evaluation --prompts=20
"""

import argparse

from sage_jax.evaluation.benchmark import measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000, help="repeated if the corpus has fewer (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=4, help="continuations of each prompt (default: %(default)s)")
    arguments = parser.parse_args()
    for line in measure(arguments.prompts, arguments.samples):
        print(line)


if __name__ == "__main__":
    main()
