"""Measures decoding, our systems and their peers in turn, and writes tables and plots.

  bash launch/peers.sh
  python -m launch.benchmark --config=configs/benchmark.py --output=runs/benchmark
  python -m launch.benchmark --config=configs/benchmark.py:debug --output=runs/debug

A run that was stopped goes on where it was: measurements.jsonl in --output holds a line for each measurement.
"""

import pathlib
import shlex
import sys

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from launch._main import run
from sage_jax.benchmark.report import REPORT, write_report
from sage_jax.benchmark.suite import BenchmarkConfig, measure

CONFIG = config_flags.DEFINE_config_file("config", "configs/benchmark.py", "What to measure.", lock_config=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the measurements, the tables and the plots.", required=True)


def main() -> None:
    config = BenchmarkConfig(**CONFIG.value.to_dict())
    output = pathlib.Path(OUTPUT.value)
    lines = measure(config, output, Console())
    write_report(config, lines, output, "python -m launch.benchmark " + shlex.join(sys.argv[1:]))
    print(output / REPORT)


if __name__ == "__main__":
    run(main)
