"""Small models of every key-value sharing, for tests of the models and of what stands on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.forms import parameter_shapes
from sage_jax.music.events import NoteEvents

VOCAB_SIZES = (20, 11, 13, 7, 9)
SHARINGS = [
    dict(sharing="mha"),
    dict(sharing="gqa", kv_heads=5),
    dict(sharing="mqa"),
    *(dict(scope=scope, heads_per_attribute=heads) for scope in ("all", "own", "mixed") for heads in (1, 4)),
]
FORMS = [
    *(dict(form="nested", inner=inner) for inner in ("mlp", "attention", "gru")),
    dict(form="nested", ahead=2),
    dict(form="nested", inner="attention", ahead=3),
    dict(form="pooled", ahead=2),
    *(dict(form="pooled", pooling=pooling) for pooling in ("sum", "concat")),
    dict(form="compound", pooling="concat"),
    dict(form="delay"),
]
NAMES = ["-".join(str(value) for value in sharing.values()) for sharing in SHARINGS]


def small_config(vocab_sizes=VOCAB_SIZES, **changes) -> ModelConfig:
    """Two layers, and 40 heads of 2, which every scope can share among four heads per attribute."""
    values = dict(width=32, layers=2, heads=40, head_width=2, mlp_width=48, query_block=4)
    return ModelConfig(vocab_sizes=vocab_sizes, **{**values, **changes})


def tiny_config(**changes) -> ModelConfig:
    """One layer over the real vocabulary."""
    return small_config(**{**dict(vocab_sizes=NoteEvents().vocab_sizes, layers=1, heads=10, head_width=4), **changes})


@functools.cache
def parameters(config: ModelConfig):
    """Random parameters, large enough that every path through the model shows in its logits.

    Drawn by numpy: the program that would draw them takes longer to compile than all that a test does with them.
    """
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape) / 4 if leaf.ndim > 1 else 1 + rng.normal(size=leaf.shape) / 10
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf), leaf.dtype), parameter_shapes(config))


def random_events(config: ModelConfig, batch: int, events: int, seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(np.stack([rng.integers(0, size, (batch, events)) for size in config.vocab_sizes], -1), jnp.int32)
