"""Compares models, and other people's MIDI files, on prompts that they have never heard, against floors that need no model.

  python -m launch.evaluate --config=configs/evaluation.py --workdir=runs/demo --output=runs/demo/evaluation
  python -m launch.evaluate --config=configs/evaluation.py --workdir=runs/demo --output=DIR --candidates=theirs=folder,mine=other

The first workdir's shards give the prompts, which are written to prompts/ in --output: 0000.mid and so on. A folder of candidates
has files of the same numbers, 0000.mid or 0000_0.mid, 0000_1.mid for several samples, each beginning with its prompt.
"""

import pathlib
import shlex
import sys

from absl import flags

from launch._main import config_file, named_folders, run
from sage_jax.evaluation.evaluate import evaluate
from sage_jax.evaluation.task import EvaluationConfig

CONFIG = config_file("configs/evaluation.py", "The task and its size.")
WORKDIR = flags.DEFINE_list("workdir", None, "Folders of runs, as NAME=FOLDER or FOLDER, the first of which has the shards.", required=True)
CANDIDATES = flags.DEFINE_list("candidates", [], "Folders of MIDI files of other systems, as NAME=FOLDER or FOLDER.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the report, and for what it is made of.", required=True)


def main() -> None:
    config = EvaluationConfig.from_dict(CONFIG.value.to_dict())
    output = pathlib.Path(OUTPUT.value)
    command = f"python -m launch.evaluate {shlex.join(sys.argv[1:])}"
    evaluate(config, named_folders("--workdir", WORKDIR.value), named_folders("--candidates", CANDIDATES.value), output, command)
    print(output / "report.md")


if __name__ == "__main__":
    run(main)
