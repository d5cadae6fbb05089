"""Evaluates trained models, and MIDI files of other systems, on prompts from a held-out split, next to baselines.

  python -m launch.evaluate --config=configs/evaluation.py --workdir=runs/demo --output=runs/demo/evaluation
  python -m launch.evaluate --config=configs/evaluation.py --workdir=runs/demo --output=DIR --candidates=a=folder,b=other
  python -m launch.evaluate --config=configs/evaluation.py --workdir=PREPROCESSED --output=DIR --model=weights/demo

The prompts come from the shards of the first workdir, and are written to prompts/ in --output as 0000.mid and so on. A folder
of candidates has a file for each prompt with the same number, 0000.mid, or several samples of each, 0000_0.mid, 0000_1.mid.
Each file begins with its prompt, unless --config.candidates_include_prompt=False.
"""

import pathlib
import shlex
import sys

from absl import flags

from launch._main import config_file, named_folders, run
from sage_jax.evaluation.evaluate import evaluate
from sage_jax.evaluation.task import EvaluationConfig

CONFIG = config_file("configs/evaluation.py", "The evaluation's settings.")
WORKDIR = flags.DEFINE_list(
    "workdir", None, "Folders of runs, as NAME=FOLDER or FOLDER. The first one provides the shards.", required=True
)
MODEL = flags.DEFINE_list("model", [], "Published weights, as NAME=SOURCE or SOURCE: a name, or a folder of launch.export.")
CANDIDATES = flags.DEFINE_list("candidates", [], "Folders of MIDI files of other systems, as NAME=FOLDER or FOLDER.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the report and its data.", required=True)


def main() -> None:
    config = EvaluationConfig.from_dict(CONFIG.value.to_dict())
    output = pathlib.Path(OUTPUT.value)
    command = f"python -m launch.evaluate {shlex.join(sys.argv[1:])}"
    workdirs, candidates = named_folders("--workdir", WORKDIR.value), named_folders("--candidates", CANDIDATES.value)
    evaluate(config, workdirs, candidates, output, command, published=named_folders("--model", MODEL.value))
    print(output / "report.md")


if __name__ == "__main__":
    run(main)
