"""Systems of other libraries, by name. Each is a script in third_party/peers and runs in an environment of its own."""

from sage_jax.files import ROOT
from sage_jax.models.presets import MMT_SIZE

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

PEERS = {
    "hf-llama-dynamic": dict(script="hf_llama.py", cache="dynamic"),
    "hf-llama-static": dict(script="hf_llama.py", cache="static"),
    "hf-llama-static-compiled": dict(script="hf_llama.py", cache="static-compiled"),
    "x-transformers": dict(script="xtransformers.py"),
    "mmt": dict(script="mmt.py", **MMT_SIZE),
    "remi-gpt2": dict(script="remi_gpt2.py", **MMT_SIZE),
    "midigpt": dict(script="midigpt_peer.py", **MMT_SIZE),
}
# Training peers: each is TORCH_COUNTERPART, our flat model with multi-head attention, in another library.
TRAINING_PEERS = {
    "torch-flat": dict(script="torch_train.py", compiled=False),
    "torch-flat-compiled": dict(script="torch_train.py", compiled=True),
}
TORCH_COUNTERPART = "mha"
