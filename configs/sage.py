"""SAGE: the as_kvhs transformer over NoteEvents.

Each argument is a complete run, on the embedded corpus unless data.corpus names another:
  debug  a minute on any machine, for quick tests
  demo   three to nine minutes on two CPU cores
  base   12 layers x 512 on crops of 1,024 events, for an accelerator (the default)
  sage-20m  the recipe of the model that comes with the package (docs/model_card.md), also for fine-tuning it
  roles-small  a small model that accompanies and infills, on two CPU cores (docs/tasks.md)
  roles-20m    sage-20m taught to accompany and infill, for an accelerator

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:base --workdir=runs/mqa --config.model.kv_sharing=mqa
  python -m launch.preprocess --config=configs/sage.py:base --workdir=runs/mine --config.data.corpus=folder:my_midi

Fields are documented in the dataclass of their section, such as sage_jax.config.TrainConfig.
"""

from ml_collections import ConfigDict

from sage_jax.defaults import PRESETS, default_config
from sage_jax.errors import UserError

ARGUMENTS = PRESETS


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of one of ARGUMENTS."""
    arg = arg or "base"
    if arg not in ARGUMENTS:
        raise UserError(f"configs/sage.py has no argument {arg!r}; choose one of {', '.join(ARGUMENTS)}")
    return ConfigDict(default_config(arg))
