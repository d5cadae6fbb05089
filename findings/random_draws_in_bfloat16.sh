#!/usr/bin/env bash
# jax.random of jax 0.10.2 draws its noise in the dtype of the logits or of the probability. A uniform bfloat16 has only 128 values.
# So the largest Gumbel values are ties, argmax takes the first, and low token numbers win.
# Seen with 1024 equal logits: 0.98 of the draws lie in the lower half. bernoulli(0.001) is true at a rate of 0.0077, 8 times too often.
# A guess is that bfloat16 adds a little noise: the documentation names only a limit of 1E-7, for float32.
# The logits of a model are often bfloat16. Casting them to float32 before the draw, or mode="high", restores the shares.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 2>/dev/null
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'END'
import jax, jax.numpy as jnp

key, tokens, draws = jax.random.key(0), 1024, 20_000
print("jax", jax.__version__)

def lower_half(dtype, mode=None):
    """The share of draws from equal logits that lie in the lower half of the vocabulary; 0.5 is right."""
    drawn = jax.random.categorical(key, jnp.zeros(tokens, dtype), shape=(draws,), mode=mode)
    return float((drawn < tokens // 2).mean())

def rare(dtype):
    """How often a bernoulli of probability 0.001 is true."""
    return float(jax.random.bernoulli(key, jnp.asarray(0.001, dtype), (200_000,)).mean())

shares = {"float32": lower_half(jnp.float32), "bfloat16": lower_half(jnp.bfloat16), "bfloat16, high": lower_half(jnp.bfloat16, "high")}
rates = {"float32": rare(jnp.float32), "bfloat16": rare(jnp.bfloat16)}
print("share of the lower half:", {name: round(value, 3) for name, value in shares.items()})
print("bernoulli(0.001):", {name: round(value, 4) for name, value in rates.items()})
assert abs(shares["float32"] - 0.5) < 0.02 and abs(shares["bfloat16, high"] - 0.5) < 0.02 and shares["bfloat16"] > 0.95
assert abs(rates["float32"] - 0.001) < 0.0005 and rates["bfloat16"] > 0.006
END
