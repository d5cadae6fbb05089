"""Trains a model on preprocessed music, or goes on where the workdir's last checkpoint is.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:demo --workdir=runs/demo

On many hosts start it on each, with the same --workdir on a disk that they share:
  python -m launch.train --config=... --workdir=... --coordinator=auto    (TPU pod, SLURM, Kubernetes, Open MPI)
  python -m launch.train --config=... --workdir=... --coordinator=HOST:PORT --num_hosts=2 --host=0
"""

from absl import flags

from launch._main import config_file, run
from sage_jax.training.hosts import join
from sage_jax.training.loop import train

CONFIG = config_file("configs/sage.py", "What to train: a file, :argument, and --config.section.field=value.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: shards, checkpoints, metrics.", required=True)
COORDINATOR = flags.DEFINE_string("coordinator", "", "Where hosts find each other: HOST:PORT of the first one, or 'auto'.")
NUM_HOSTS = flags.DEFINE_integer("num_hosts", None, "How many hosts there are, if --coordinator is not 'auto'.")
HOST = flags.DEFINE_integer("host", None, "Which of them this is, from 0 on.")


def main() -> None:
    join(COORDINATOR.value, NUM_HOSTS.value, HOST.value)
    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    run(main)
