"""Trains a model on preprocessed music, or goes on where the workdir's last checkpoint is.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:demo --workdir=runs/demo
"""

from absl import flags
from ml_collections import config_flags

from launch._main import run
from sage_jax.training.loop import train

CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/sage.py", "What to train: a file, :argument, and --config.section.field=value.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: shards, checkpoints, metrics.", required=True)


def main() -> None:
    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    run(main)
