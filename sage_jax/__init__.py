"""Low-latency multi-track symbolic music generation in JAX.

model = sage_jax.load("runs/demo")
takes = model.continue_("song.mid", bars=8)
takes.save("takes")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_jax.api import Model, load
    from sage_jax.corpus.preprocess import preprocess
    from sage_jax.decoding.sampling import SamplingConfig
    from sage_jax.defaults import default_config
    from sage_jax.errors import UserError
    from sage_jax.music.midi import read_midi, save_midi
    from sage_jax.music.notes import Piece
    from sage_jax.takes import Prompt, Score, Takes
    from sage_jax.training.loop import train

# Where each public name is defined. A name is imported when it is used: importing sage_jax alone loads neither jax nor orbax.
_MODULES = {
    "Model": "api",
    "Piece": "music.notes",
    "Prompt": "takes",
    "SamplingConfig": "decoding.sampling",
    "Score": "takes",
    "Takes": "takes",
    "UserError": "errors",
    "default_config": "defaults",
    "load": "api",
    "preprocess": "corpus.preprocess",
    "read_midi": "music.midi",
    "save_midi": "music.midi",
    "train": "training.loop",
}
__all__ = [
    "Model", "Piece", "Prompt", "SamplingConfig", "Score", "Takes", "UserError", "default_config", "load", "preprocess",
    "read_midi", "save_midi", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sage_jax' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"sage_jax.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in ("grain", "ml_collections"):
            raise
        from sage_jax.errors import UserError

        raise UserError(f"sage_jax.{name} needs the package {error.name}; pip install 'sage_jax[train]' brings it") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
