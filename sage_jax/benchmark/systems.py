"""What is measured: our forms and ways to share key-value heads, and the peers, by name."""

import pathlib

from sage_jax.errors import UserError
from sage_jax.models.config import FORMS

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


def fields_of(name: str) -> dict:
    """The fields of ModelConfig for the system called `name`: a sharing, of the flat model, or behind the name of another form.

    Raises UserError for an unknown one.
    """
    form, _, rest = name.partition("-")
    form, sharing = (form, rest) if form in FORMS else ("flat", name)
    if sharing not in SHARINGS:
        raise UserError(
            f"there is no system called {name!r}; choose from {', '.join((*SHARINGS, *PEERS))}, or put {', '.join(FORMS[1:])} "
            "and a hyphen before a sharing"
        )
    return {"form": form, **SHARINGS[sharing]}
