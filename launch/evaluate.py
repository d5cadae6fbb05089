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
from ml_collections import config_flags

from launch._main import run
from sage_jax.errors import UserError
from sage_jax.evaluation.evaluate import EvaluationConfig, evaluate

CONFIG = config_flags.DEFINE_config_file("config", "configs/evaluation.py", "The task and its size.", lock_config=True)
WORKDIR = flags.DEFINE_list("workdir", None, "Folders of runs, the first of which has the shards.", required=True)
CANDIDATES = flags.DEFINE_list("candidates", [], "Folders of MIDI files of other systems, as NAME=FOLDER or FOLDER.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the report, and for what it is made of.", required=True)


def main() -> None:
    named = [folder.partition("=") for folder in CANDIDATES.value]
    folders = [(name if equals else pathlib.Path(name).name, pathlib.Path(rest if equals else name)) for name, equals, rest in named]
    candidates = dict(folders)
    if len(candidates) < len(folders):
        raise UserError("--candidates: two folders have one name; give each as NAME=FOLDER")
    output = pathlib.Path(OUTPUT.value)
    config = EvaluationConfig.from_dict(CONFIG.value.to_dict())
    command = f"python -m launch.evaluate {shlex.join(sys.argv[1:])}"
    evaluate(config, [pathlib.Path(folder) for folder in WORKDIR.value], candidates, output, command)
    print(output / "report.md")


if __name__ == "__main__":
    run(main)
