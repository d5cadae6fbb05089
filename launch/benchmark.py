"""Measures decoding and training of our systems and their peers, and writes tables and plots.

  bash launch/peers.sh
  python -m launch.benchmark --config=configs/benchmark.py --output=runs/benchmark
  python -m launch.benchmark --config=configs/benchmark.py:training --output=runs/speed
  python -m launch.benchmark --config=configs/benchmark.py:debug --output=runs/debug

The same command resumes a run that was stopped: measurements.jsonl in --output has one line per measurement. BENCHMARKS.md in
--output has the tables. With --publish the tables also replace the part of docs/benchmarks.md that config.title names, and
scaling curves go to docs/benchmark.png.
"""

import pathlib

from absl import flags
from rich.console import Console

from launch._main import as_typed, config_file, run
from sage_jax.benchmark.config import BenchmarkConfig
from sage_jax.benchmark.report import write_report
from sage_jax.benchmark.suite import measure
from sage_jax.files import ROOT

CONFIG = config_file("configs/benchmark.py", "What to measure.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the measurements, the tables and the plots.", required=True)
PUBLISH = flags.DEFINE_bool("publish", False, "Whether to also replace this part of docs/benchmarks.md.")


def main() -> None:
    config = BenchmarkConfig(**CONFIG.value.to_dict())
    output = pathlib.Path(OUTPUT.value)
    measurements = measure(config, output, Console())
    command = as_typed("launch.benchmark", {"output": "DIR"})
    reports = [(output / "BENCHMARKS.md", output / "benchmark.png")]
    if PUBLISH.value:
        reports.append((ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmark.png"))
    for report, plot in reports:
        write_report(config, measurements, report, plot, command)
        print(report)


if __name__ == "__main__":
    run(main)
