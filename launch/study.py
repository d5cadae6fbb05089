"""Trains every system on the same notes, asks each the same, measures its speed, and writes RESULTS.md.

  python -m launch.study --config=configs/study.py:debug --workdir=runs/study
  python -m launch.study --config=configs/study.py:cpu --workdir=runs/study \\
      --config.corpora.multitrack=folder:MULTITRACK --config.corpora.piano=folder:PIANO
  python -m launch.study --results=launch/study-cpu.json --workdir=runs/again
  python -m launch.study --config=configs/study.py:full --cost=4e14

Stop it at any moment: the same command goes on where it stopped. With --helping it trains beside another run in the same
workdir, which takes half the time on two devices: start one on each, such as with `CUDA_VISIBLE_DEVICES=1` or `taskset -c 1`
before the command, and when they end the command without --helping, which measures speeds. With --known=FILE,FILE the cells that
these results.json of other workdirs tell of are taken over, wherever they were done.

RESULTS.md, results.json and results.png come to the workdir, of what is finished so far with --report. With --publish they also
become launch/study-TITLE.json and .png of this checkout, and the part of its RESULTS.md that config.title names; --results makes
them from such a JSON file alone. --cost tells what a study takes on a device of that rate.
"""

import pathlib

from absl import flags
from rich.console import Console

from launch._main import as_typed, config_file, run
from sage_jax.benchmark.systems import ROOT
from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.study.cells import Examiner
from sage_jax.study.config import StudyConfig
from sage_jax.study.cost import cost
from sage_jax.study.report import write_results
from sage_jax.study.results import collect, read_known, read_results
from sage_jax.study.study import run_study

CONFIG = config_file("configs/study.py", "What to study: a size, and what overrides it.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study: shards, models, results.")
REPORT = flags.DEFINE_bool("report", False, "Whether to tell of what is finished, and do no more.")
COST = flags.DEFINE_float("cost", None, "Operations per second that training reaches; tells device hours, and trains nothing.")
JSON = flags.DEFINE_string("results", None, "The JSON file of a finished study, to be told again.")
HELPING = flags.DEFINE_bool("helping", False, "Whether to train what other runs in --workdir have not taken, and do no more.")
KNOWN = flags.DEFINE_list("known", [], "results.json of other workdirs, whose cells are not to be done again.")
PUBLISH = flags.DEFINE_bool("publish", False, "Whether to replace this part of the checkout's RESULTS.md, too.")


def main() -> None:
    if COST.value is not None:
        if not COST.value > 0:
            raise UserError(f"--cost is {COST.value}; give operations per second, such as 4e14")
        print(cost(StudyConfig.from_dict(CONFIG.value.to_dict()), COST.value))
        return
    if not WORKDIR.value:
        raise UserError("--workdir is missing; name the folder of the study")
    workdir, console = pathlib.Path(WORKDIR.value), Console()
    if JSON.value:
        found = read_results(pathlib.Path(JSON.value))
    else:
        known = read_known([pathlib.Path(path) for path in KNOWN.value])
        examiner = Examiner(StudyConfig.from_dict(CONFIG.value.to_dict()), workdir, known)
        if not REPORT.value:
            say = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
            run_study(examiner, say, helping=HELPING.value)
            if HELPING.value:
                return
        told = {"workdir": "DIR", "known": "FILE"}
        found = collect(examiner, as_typed("launch.study", told, left_out=("report", "publish")))
    places = [(workdir / "RESULTS.md", workdir / "results.png")]
    if PUBLISH.value:
        published = ROOT / "launch" / f"study-{found['title']}"
        places.append((ROOT / "RESULTS.md", published.with_suffix(".png")))
        write_json(published.with_suffix(".json"), found, indent=1)
    for report, picture in places:
        write_results(found, report, picture)
        print(report)


if __name__ == "__main__":
    run(main)
