"""The systems that SAGE is compared to, and nested decoding: one name for each, at the sizes of configs/sage.py.

The argument is a name, or a name and a size: debug, demo or base (the default).
  mha        the flat model with a key-value head for each query head
  mqa        the flat model with one for all
  nested     the layers once for an event, then a small decoder over its attributes, one after another: residual MLPs;
             nested-gru and nested-attention have one of another make
  pooled     the layers once for an event, then its attributes in parallel: sum in, parallel heads out
  octuple    as pooled, but embeddings joined and projected, not added
  compound   as octuple, but the first attribute is drawn first, and the others, in parallel, know it
  delay      the layers once for an event, each attribute an event later than the one before it
  mmt        the Multitrack Music Transformer: its rows, without drums, velocities and tempos; base is of the published size
  remi       a stream of REMI+
  bpe2000    REMI+ with as many ids more from byte-pair encoding, of merges that stay within a bar; any number will do

  python -m launch.preprocess --config=configs/baselines.py:nested-demo --workdir=runs/nested
  python -m launch.train --config=configs/baselines.py:nested-demo --workdir=runs/nested
  python -m launch.sample --config=configs/baselines.py:nested-demo --workdir=runs/nested --output=runs/nested/takes

Every other field is that of configs/sage.py, and can be overridden as there (--config.model.sharing=as_kvhs).
"""

from ml_collections import ConfigDict

from configs import sage
from sage_jax.benchmark.systems import MMT_SIZE, NAMED, sections_of
from sage_jax.errors import UserError

SYSTEMS = ("mha", "mqa", *NAMED)
ARGUMENTS = tuple(f"{system}-{size}" for system in SYSTEMS for size in sage.ARGUMENTS) + ("bpe2000-demo",)


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a system, "nested" if None, and a size."""
    name, _, size = (arg or "nested").rpartition("-")
    if size not in sage.ARGUMENTS:
        name, size = arg or "nested", None
    is_bpe = name.startswith("bpe") and name[3:].isdecimal()
    if not (name in SYSTEMS or is_bpe):
        raise UserError(
            f"configs/baselines.py has no argument {arg!r}; choose one of {', '.join(SYSTEMS)} or bpe and a number, and behind a "
            f"hyphen one of {', '.join(sage.ARGUMENTS)}"
        )
    config = sage.get_config(size)
    config.update(sections_of(name))
    if name == "mmt" and size in (None, "base"):
        config.model.update(MMT_SIZE)
    return config
