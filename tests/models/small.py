"""Small models of every architecture and key-value sharing, for tests of the models and of decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.models.registry import abstract_params
from sage_jax.tokenizers.note_events import NoteEvents

VOCAB_SIZES = (20, 11, 13, 7, 9)
SHARINGS = [
    dict(kv_sharing="mha"),
    dict(kv_sharing="gqa", num_kv_heads=5),
    dict(kv_sharing="mqa"),
    *(dict(attribute_scope=scope, kv_heads_per_attribute=1) for scope in ("all", "own", "mixed")),
]
FOUR_KV_HEADS = [dict(attribute_scope=scope, kv_heads_per_attribute=4) for scope in ("all", "own", "mixed")]
EVENT_LEVEL = [
    *(dict(architecture="nested", event_decoder=decoder) for decoder in ("mlp", "attention", "gru")),
    dict(architecture="nested", lookahead=2),
    dict(architecture="nested", event_decoder="attention", lookahead=3),
    dict(architecture="pooled", lookahead=2),
    *(dict(architecture="pooled", pooling=pooling) for pooling in ("sum", "concat")),
    dict(architecture="compound", pooling="concat"),
    dict(architecture="delay"),
]


def join_values(fields: dict) -> str:
    """A test id from the values of `fields`."""
    return "-".join(map(str, fields.values()))


def small_config(vocab_sizes=VOCAB_SIZES, **changes) -> ModelConfig:
    """Two layers with 40 heads of size 2; 40 is a multiple of the heads that every scope needs with four KV heads."""
    values = dict(embed_dim=32, num_layers=2, num_heads=40, head_dim=2, mlp_dim=48, query_chunk_size=4)
    return ModelConfig(vocab_sizes=vocab_sizes, **{**values, **changes})


def tiny_config(**changes) -> ModelConfig:
    """One layer over the vocabulary of NoteEvents."""
    return small_config(**{**dict(vocab_sizes=NoteEvents().vocab_sizes, num_layers=1, num_heads=10, head_dim=4), **changes})


@functools.cache
def parameters(config: ModelConfig):
    """Random parameters, large enough that every path through the model affects its logits.

    They are drawn and cast with numpy: to compile the initializer, or a cast of each shape, takes longer than most tests.
    """
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape) / 4 if leaf.ndim > 1 else 1 + rng.normal(size=leaf.shape) / 10
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf).astype(leaf.dtype)), abstract_params(config))


def random_events(config: ModelConfig, batch: int, events: int, seed: int = 0) -> np.ndarray:
    """int32 [batch, events, A] of uniform ids."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, (batch, events)) for size in config.vocab_sizes], -1).astype(np.int32)
