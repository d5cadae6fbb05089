"""Trains every system on the same notes, evaluates each in the same way, measures its speed, and writes a report.

  python -m launch.study --config=configs/study.py:debug --workdir=runs/study
  python -m launch.study --config=configs/study.py:cpu --workdir=runs/study \\
      --config.corpora.multitrack=folder:MULTITRACK --config.corpora.piano=folder:PIANO
  python -m launch.study --from_json=docs/study-cpu.json --workdir=runs/again
  python -m launch.study --config=configs/study.py:full --flops_per_second=4e14

Stop it at any time: the same command resumes it. To use several devices, start the same command with --worker on each of them
(for example after `CUDA_VISIBLE_DEVICES=1` or `taskset -c 1`). When the workers end, run it without --worker: it measures
speeds.

RESULTS.md, results.json and results.png go to the workdir. With --publish they also replace docs/study-TITLE.json, its .png,
and the part of docs/results.md that config.title names.
"""

from absl import flags
from rich.console import Console

from launch._main import as_typed, config_file, run
from sage_jax.study import cli

CONFIG = config_file("configs/study.py", "What to study: a size, and what overrides it.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study: shards, trials, results.")
REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Whether to only report the finished trials.")
WORKER = flags.DEFINE_bool("worker", False, "Whether to only train what no other process in --workdir has taken.")
REUSE = flags.DEFINE_list("reuse", [], "results.json files of other workdirs with this config, whose trials are not repeated.")
ACCEPT_CODE = flags.DEFINE_bool("accept_code", False, "Whether finished trials of other code count as well.")
FROM_JSON = flags.DEFINE_string("from_json", None, "The JSON file of a study; writes its report and trains nothing.")
FLOPS_PER_SECOND = flags.DEFINE_float("flops_per_second", None, "Rate of training; prints device hours and trains nothing.")
PUBLISH = flags.DEFINE_bool("publish", False, "Whether to also replace the study's files in docs.")


def main() -> None:
    config = CONFIG.value.to_dict()
    if FLOPS_PER_SECOND.value is not None:
        cli.print_cost(config, FLOPS_PER_SECOND.value)
        return
    console = Console()
    options = cli.Options(
        workdir=WORKDIR.value,
        command=as_typed("launch.study", {"workdir": "DIR", "reuse": "FILE"}, left_out=("report_only", "publish")),
        report_only=REPORT_ONLY.value,
        worker=WORKER.value,
        reuse=REUSE.value,
        accept_code=ACCEPT_CODE.value,
        from_json=FROM_JSON.value,
        publish=PUBLISH.value,
    )
    cli.run(config, options, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


if __name__ == "__main__":
    run(main)
