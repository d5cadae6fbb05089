"""Trains a model on preprocessed music, or resumes from the workdir's newest checkpoint.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:demo --workdir=runs/demo

On many hosts, start it on each, with the same --workdir on a shared disk:
  python -m launch.train --config=... --workdir=... --coordinator=auto    (TPU pod, SLURM, Kubernetes, Open MPI)
  python -m launch.train --config=... --workdir=... --coordinator=HOST:PORT --num_processes=2 --process_id=0
"""

from absl import flags

from launch._main import config_file, run
from sage_jax.training.hosts import initialize_distributed
from sage_jax.training.loop import train

CONFIG = config_file("configs/sage.py", "What to train: a file, :argument, and --config.section.field=value.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: shards, checkpoints, metrics.", required=True)
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, 'auto' on a cluster, or empty for one process.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, if --coordinator is HOST:PORT.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process, from 0, if --coordinator is HOST:PORT.")


def main() -> None:
    initialize_distributed(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    run(main)
