"""Measures published weights for their model card: what they are, speed here, likelihood, and scores of continuations.

  python -m launch.preprocess --config=configs/sage.py:sage-20m --workdir=runs/legal --config.data.corpus=folder:LEGAL
  python -m launch.model_card --model=sage-20m --workdir=runs/legal --output=runs/card
  python -m launch.model_card --model=sage-20m --workdir=runs/legal --output=runs/card --publish

The sections go to card.md in --output; --publish puts them in place of those of docs/model_card.md.
"""

import pathlib

from absl import flags

from launch._main import as_typed, config_file, run
from sage_jax.benchmark.model_card import model_card
from sage_jax.evaluation.task import EvaluationConfig
from sage_jax.files import ROOT
from sage_jax.markdown import write_part

PAGE = ROOT / "docs" / "model_card.md"
CONFIG = config_file("configs/evaluation.py", "The evaluation's settings; sampling is that of the model.")
MODEL = flags.DEFINE_string("model", None, "The weights: a name, or a folder of launch.export.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder whose `data` has the shards of the corpus.", required=True)
PROMPT = flags.DEFINE_string(
    "prompt", str(ROOT / "third_party/midi/freedoom/freedoom2_d_messag.mid"), "MIDI file for the measurement of speed."
)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the sections and the evaluation.", required=True)
PUBLISH = flags.DEFINE_bool("publish", False, "Whether to put the sections into docs/model_card.md.")


def main() -> None:
    config = EvaluationConfig.from_dict(CONFIG.value.to_dict())
    output = pathlib.Path(OUTPUT.value)
    command = as_typed("launch.model_card", {"workdir": "DIR", "output": "DIR", "prompt": "FILE"}, left_out=("publish",))
    page = PAGE if PUBLISH.value else output / "card.md"
    for section in model_card(MODEL.value, pathlib.Path(WORKDIR.value), PROMPT.value, config, output, command):
        write_part(page, "# Model card", section)
    print(page)


if __name__ == "__main__":
    run(main)
