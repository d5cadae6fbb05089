"""Compares runs: a picture of their curves, and a table of how they fared and of the fields in which they differ.

  python -m launch.compare runs/a runs/b --out=compare.png
  python -m launch.compare small=runs/a large=runs/b --out=compare.png --x=notes

A run is a --workdir of launch.train, under its own name or as NAME=FOLDER, finished or not.
"""

from absl import flags

from launch._main import named_folders, run
from sage_jax.training.compare import AXES, compare

RUNS = flags.DEFINE_list("runs", [], "Folders of runs, as NAME=FOLDER or FOLDER; they may stand without the flag's name.")
OUT = flags.DEFINE_string("out", "compare.png", "The picture to draw: .png, .svg or .pdf.")
X = flags.DEFINE_enum("x", "steps", AXES, "What curves are drawn over: steps, or the notes that a run has learned from.")


def main() -> None:
    print(compare(named_folders("--runs", RUNS.value), OUT.value, X.value))
    print(OUT.value)


if __name__ == "__main__":
    run(main, positional="runs")
