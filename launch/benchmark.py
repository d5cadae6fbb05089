"""Measures decoding and training, our systems and their peers in turn, and writes tables and plots.

  bash launch/peers.sh
  python -m launch.benchmark --config=configs/benchmark.py --output=runs/benchmark
  python -m launch.benchmark --config=configs/benchmark.py:training --output=runs/speed
  python -m launch.benchmark --config=configs/benchmark.py:debug --output=runs/debug

A run that was stopped goes on where it was: measurements.jsonl in --output holds a line for each measurement. With --publish
the tables also become the part of this checkout's BENCHMARKS.md that config.title names, and plots, where something grows,
launch/benchmark.png.
"""

import pathlib

from absl import flags
from rich.console import Console

from launch._main import as_typed, config_file, run
from sage_jax.benchmark.config import BenchmarkConfig
from sage_jax.benchmark.report import write_report
from sage_jax.benchmark.suite import measure
from sage_jax.benchmark.systems import ROOT

CONFIG = config_file("configs/benchmark.py", "What to measure.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the measurements, the tables and the plots.", required=True)
PUBLISH = flags.DEFINE_bool("publish", False, "Whether to replace this part of the checkout's BENCHMARKS.md, too.")


def main() -> None:
    config = BenchmarkConfig(**CONFIG.value.to_dict())
    output = pathlib.Path(OUTPUT.value)
    lines = measure(config, output, Console())
    command = as_typed("launch.benchmark", {"output": "DIR"})
    places = [(output / "BENCHMARKS.md", output / "benchmark.png")]
    if PUBLISH.value:
        places.append((ROOT / "BENCHMARKS.md", ROOT / "launch" / "benchmark.png"))
    for report, plot in places:
        write_report(config, lines, report, plot, command)
        print(report)


if __name__ == "__main__":
    run(main)
