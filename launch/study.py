"""Trains every system on the same notes, asks each the same, measures its speed, and writes RESULTS.md.

  python -m launch.study --config=configs/study.py:debug --workdir=runs/study
  python -m launch.study --config=configs/study.py:cpu --workdir=runs/study \\
      --config.corpora.multitrack=folder:MULTITRACK --config.corpora.piano=folder:PIANO
  python -m launch.study --results=launch/study.json --workdir=runs/again
  python -m launch.study --config=configs/study.py:full --cost=4e14

Stop it at any moment: the same command goes on where it stopped. With --helping it trains beside another run in the same
workdir, which takes half the time on two devices: start one on each, such as with `CUDA_VISIBLE_DEVICES=1` or `taskset -c 1`
before the command, and when they end the command without --helping, which measures speeds. With --known=FILE,FILE the cells that
these results.json of other workdirs tell of are taken over, wherever they were done.

RESULTS.md, results.json and results.png come to the workdir, of what is finished so far with --report. With --publish they also
become RESULTS.md, launch/study.json and launch/study.png of this checkout; --results makes them from such a JSON file alone.
--cost tells what a study takes on a device of that rate.
"""

import pathlib
import shlex
import sys

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from launch._main import run
from sage_jax.benchmark.systems import ROOT
from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.study.cells import Examiner
from sage_jax.study.config import StudyConfig
from sage_jax.study.cost import cost
from sage_jax.study.report import write_results
from sage_jax.study.results import collect, read_known, read_results
from sage_jax.study.study import run_study

CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/study.py", "What to study: a size, and what overrides it.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study: shards, models, results.")
REPORT = flags.DEFINE_bool("report", False, "Whether to tell of what is finished, and do no more.")
COST = flags.DEFINE_float("cost", None, "Operations per second that training reaches; tells device hours, and trains nothing.")
JSON = flags.DEFINE_string("results", None, "The JSON file of a finished study, to be told again.")
HELPING = flags.DEFINE_bool("helping", False, "Whether to train what other runs in --workdir have not taken, and do no more.")
KNOWN = flags.DEFINE_list("known", [], "results.json of other workdirs, whose cells are not to be done again.")
PUBLISH = flags.DEFINE_bool("publish", False, "Whether to replace the RESULTS.md of this checkout, too.")


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
        found = collect(examiner, _command())
    places = [(workdir / "RESULTS.md", workdir / "results.png")]
    if PUBLISH.value:
        places.append((ROOT / "RESULTS.md", ROOT / "launch" / "study.png"))
        write_json(ROOT / "launch" / "study.json", found, indent=1)
    for report, picture in places:
        write_results(found, report, picture)
        print(report)


def _command() -> str:
    """As it was typed, but for the names of folders, and for what only tells of it."""
    told = [argument for argument in sys.argv[1:] if argument not in ("--report", "--publish")]
    shown = [argument.partition("folder:")[0] + "folder:DIR" if "folder:" in argument else argument for argument in told]
    for name, stands_for in (("--workdir=", "DIR"), ("--known=", "FILE")):
        shown = [name + stands_for if argument.startswith(name) else argument for argument in shown]
    return f"python -m launch.study {shlex.join(shown)}"


if __name__ == "__main__":
    run(main)
