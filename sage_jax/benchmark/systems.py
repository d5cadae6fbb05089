"""What is measured: our forms and ways to share key-value heads, and the peers, by name."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sage_jax.errors import UserError
from sage_jax.models.config import FORMS, ModelConfig
from sage_jax.music.events import NoteEvents

ROOT = pathlib.Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

# The size that Multitrack Music Transformer is published with; the others take the size of the models beside them.
MMT_SIZE = dict(width=512, layers=6, heads=8, head_width=64, mlp_width=2048)
PEERS = {
    "hf-llama-dynamic": dict(script="hf_llama.py", cache="dynamic"),
    "hf-llama-static": dict(script="hf_llama.py", cache="static"),
    "hf-llama-static-compiled": dict(script="hf_llama.py", cache="static-compiled"),
    "x-transformers": dict(script="xtransformers.py"),
    "mmt": dict(script="mmt.py", **MMT_SIZE),
    "remi-gpt2": dict(script="remi_gpt2.py", **MMT_SIZE),
    "midigpt": dict(script="midigpt_peer.py", **MMT_SIZE),
}
# Those that train; each is the flat model with all heads, REBUILT, in another library.
TRAINING_PEERS = {
    "torch-flat": dict(script="torch_train.py", compiled=False),
    "torch-flat-compiled": dict(script="torch_train.py", compiled=True),
}
REBUILT = "mha"

SHARINGS = {
    "mha": dict(sharing="mha"),
    "gqa-5": dict(sharing="gqa", kv_heads=5),
    "gqa-2": dict(sharing="gqa", kv_heads=2),
    "mqa": dict(sharing="mqa"),
    **{
        f"as_kvhs-{scope}-{heads}": dict(sharing="as_kvhs", scope=scope, heads_per_attribute=heads)
        for scope in ("all", "own", "mixed")
        for heads in (1, 2, 4)
    },
}


# The systems that have more of their own than a form and a sharing: the sections of a config that they change.
NAMED = {
    "nested": {"model": {"form": "nested", "sharing": "mqa"}},
    "nested-gru": {"model": {"form": "nested", "inner": "gru", "sharing": "mqa"}},
    "nested-attention": {"model": {"form": "nested", "inner": "attention", "sharing": "mqa"}},
    "pooled": {"model": {"form": "pooled", "sharing": "mha"}},
    "octuple": {"model": {"form": "pooled", "pooling": "concat", "sharing": "mha"}},
    "compound": {"model": {"form": "compound", "pooling": "concat", "sharing": "mha"}},
    "delay": {"model": {"form": "delay", "sharing": "mha"}},
    "mmt": {"model": {"form": "pooled", "sharing": "mha"}, "representation": {"name": "mmt", "steps_per_event": 1.25}},
    "remi": {"model": {"sharing": "mha"}, "representation": {"name": "remi"}},
}
MERGED_STEPS = 4.0  # the steps that a crop of merged REMI+ holds, for each of its events; 500 merges need most


def sections_of(name: str) -> dict[str, dict[str, Any]]:
    """What the system called `name` has of its own, by section of the config: one of NAMED, bpeN, or what `fields_of` knows.

    bpeN is REMI+ with N ids more from byte-pair encoding. Raises UserError for an unknown one.
    """
    merges = name.removeprefix("bpe")
    if name in NAMED:
        return {section: dict(fields) for section, fields in NAMED[name].items()}
    if merges != name and merges.isdecimal():
        representation = {"name": "remi", "merges": int(merges), "steps_per_event": MERGED_STEPS}
        return {"model": {"sharing": "mha"}, "representation": representation}
    return {"model": fields_of(name)}


def fields_of(name: str) -> dict[str, Any]:
    """The fields of ModelConfig for a name such as ModelConfig.name gives: a sharing, after the form where it is not flat.

    After the form a number may say how many attributes it reads ahead: mha, nested-mqa, nested2-as_kvhs-mixed-1. Raises
    UserError for an unknown one.
    """
    form, _, sharing = ("flat", "", name) if name in SHARINGS else name.partition("-")
    form, ahead = (form[:-1], int(form[-1])) if form[-1:].isdecimal() else (form, 0)
    if form not in FORMS or sharing not in SHARINGS:
        raise UserError(
            f"there is no system called {name!r}; choose from "
            f"{', '.join((*NAMED, 'bpe2000', *SHARINGS, *PEERS, *TRAINING_PEERS))}, or put "
            f"{', '.join(FORMS[1:])} and a hyphen before a sharing"
        )
    return {"form": form, "ahead": ahead, **SHARINGS[sharing]}


def model_of(system: str, sizes: Mapping[str, Any], dtype: str) -> ModelConfig:
    """The model of these sizes that is called `system`. Raises UserError for what can't be."""
    return ModelConfig(vocab_sizes=NoteEvents().vocab_sizes, dtype=dtype, **sizes, **fields_of(system))
