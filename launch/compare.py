"""Compares runs: a picture of their learning curves, and a table of their losses and of the config fields that differ.

  python -m launch.compare runs/a runs/b --output=compare.png
  python -m launch.compare small=runs/a large=runs/b --output=compare.png --x_axis=notes

A run is a --workdir of launch.train, given as FOLDER or NAME=FOLDER. It may still be training.
"""

from absl import flags

from launch._main import named_folders, run
from sage_jax.rendering.learning_curves import AXES, compare

RUNS = flags.DEFINE_list("runs", [], "Folders of runs, as NAME=FOLDER or FOLDER; the flag's name may be left out.")
OUTPUT = flags.DEFINE_string("output", "compare.png", "The picture to draw: .png, .svg or .pdf.")
X_AXIS = flags.DEFINE_enum("x_axis", "steps", AXES, "The x axis: steps, or notes trained on.")


def main() -> None:
    print(compare(named_folders("--runs", RUNS.value), OUTPUT.value, X_AXIS.value))
    print(OUTPUT.value)


if __name__ == "__main__":
    run(main, positional="runs")
