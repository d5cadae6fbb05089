"""The systems that SAGE is compared with, and nested decoding, by name, at the sizes of configs/sage.py.

The argument is a name, or a name and a size: debug, demo or base (the default).
  mha        the flat model with multi-head attention: a KV head for each query head
  mqa        the flat model with multi-query attention: one KV head
  nested     the backbone once per event, then an event decoder that predicts one attribute after another: residual MLPs;
             nested-gru and nested-attention have a GRU and an attention layer instead
  pooled     the backbone once per event on the sum of its embeddings; all attributes predicted independently
  octuple    as pooled, with embeddings concatenated and projected instead of summed
  compound   as octuple, with the first attribute drawn first, and the others independently conditioned on it
  delay      the backbone once per event; each attribute one step after the one before it
  mmt        the Multitrack Music Transformer: its rows, without drums, velocities or tempos; base has the published size
  remi       a stream of REMI+ tokens
  bpe2000    REMI+ with 2000 more ids from byte-pair encoding, with merges within a bar; any number works

  python -m launch.preprocess --config=configs/baselines.py:nested-demo --workdir=runs/nested
  python -m launch.train --config=configs/baselines.py:nested-demo --workdir=runs/nested
  python -m launch.sample --config=configs/baselines.py:nested-demo --workdir=runs/nested --output=runs/nested/takes

Other fields are those of configs/sage.py and can be overridden (--config.model.kv_sharing=as_kvhs).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import sage
from sage_jax.defaults import SIZES
from sage_jax.errors import UserError
from sage_jax.models.presets import MMT_SIZE, NAMED, config_sections

SYSTEMS = ("mha", "mqa", *NAMED)
ARGUMENTS = (*(f"{system}-{size}" for system in SYSTEMS for size in SIZES), "bpe2000-demo")


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a system and a size; that of "nested" if `arg` is None."""
    name, _, size = (arg or "nested").rpartition("-")
    if size not in SIZES:
        name, size = arg or "nested", None
    is_bpe = name.startswith("bpe") and name[3:].isdecimal()
    if not (name in SYSTEMS or is_bpe):
        raise UserError(
            f"configs/baselines.py has no argument {arg!r}; choose one of {', '.join(SYSTEMS)} or bpe and a number, then "
            f"optionally a hyphen and one of {', '.join(SIZES)}"
        )
    config: Any = sage.get_config(size)
    config.update(config_sections(name))
    if name == "mmt" and size in (None, "base"):
        config.update({"model": MMT_SIZE})
    return config
