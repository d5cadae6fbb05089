"""Evaluates a model with roles: bits per own note by what is given and when, and takes beside floors.

  python -m launch.evaluate_tasks --workdir=runs/roles --output=runs/roles/tasks
  python -m launch.evaluate_tasks --model=weights/roles --shards=runs/data/data --output=tasks --pieces=500 --cases=200
  python -m launch.evaluate_tasks --workdir=runs/roles --output=runs/roles/tasks --turns=21

It writes tasks.md and tasks.json. docs/tasks.md says what the numbers mean.
"""

import pathlib
import shlex
import sys

from absl import flags

from launch._main import run
from sage_jax.api import load
from sage_jax.errors import UserError
from sage_jax.evaluation.tasks import evaluate_tasks

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run that is evaluated.")
MODEL = flags.DEFINE_string("model", None, "Weights that are evaluated instead: a name, or a folder of launch.export.")
SHARDS = flags.DEFINE_string("shards", None, "Folder of the token shards; default: those of the run.")
SPLIT = flags.DEFINE_enum("split", "test", ("valid", "test"), "Split of the pieces.")
PIECES = flags.DEFINE_integer("pieces", 200, "Pieces of which the bits are counted, evenly from the split.", lower_bound=2)
CASES = flags.DEFINE_integer("cases", 100, "Takes of each task, at most one of a piece.", lower_bound=2)
TURNS = flags.DEFINE_integer(
    "turns", 0, "Turns in which the speed of the tasks is measured as well; ratios need 21. Run nothing else.", lower_bound=0
)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the tables.", required=True)


def main() -> None:
    source = WORKDIR.value or MODEL.value
    if source is None or (WORKDIR.value and MODEL.value):
        raise UserError("give --workdir=RUN or --model=NAME, and not both")
    model = load(source, best=bool(WORKDIR.value))
    default = model.run.data.shards or (pathlib.Path(WORKDIR.value) / "data" if WORKDIR.value else None)
    shards = SHARDS.value or default
    if shards is None:
        raise UserError("give --shards=FOLDER, the token shards with the held-out pieces")
    command = f"python -m launch.evaluate_tasks {shlex.join(sys.argv[1:])}"
    output = pathlib.Path(OUTPUT.value)
    evaluate_tasks(
        model,
        pathlib.Path(shards),
        output,
        split=SPLIT.value,
        pieces=PIECES.value,
        cases=CASES.value,
        command=command,
        turns=TURNS.value,
    )
    print(output / "tasks.md")


if __name__ == "__main__":
    run(main)
