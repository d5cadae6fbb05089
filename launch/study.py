"""Trains every system on the same notes, asks each the same, measures its speed, and writes RESULTS.md.

  python -m launch.study --config=configs/study.py:debug --workdir=runs/study
  python -m launch.study --config=configs/study.py:cpu --workdir=runs/study \
      --config.corpora.multitrack=folder:MULTITRACK --config.corpora.piano=folder:PIANO

Stop it at any moment: the same command goes on where it stopped.
"""
import pathlib

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from launch._main import run
from sage_jax.study.config import StudyConfig
from sage_jax.study.study import run_study

CONFIG = config_flags.DEFINE_config_file("config", "configs/study.py", "What to study: a size, and what overrides it.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study: shards, models, results.", required=True)


def main() -> None:
    console = Console()
    say = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    run_study(StudyConfig.from_dict(CONFIG.value.to_dict()), pathlib.Path(WORKDIR.value), say)


if __name__ == "__main__":
    run(main)
