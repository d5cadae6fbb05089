"""The seam for attention kernels: which implementation attends, by phase. Shapes as in attention.py.

Training and validation read whole crops without a cache, and `ModelConfig.attention_impl` names their implementation. Prefill
and event steps read events after those of a cache. Their implementation owns the layout of the cache.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from sage_jax.models import flash_attention
from sage_jax.models.config import ModelConfig
from sage_jax.models.grouped_attention import GroupedLayout, StackedLayout, attend_grouped
from sage_jax.models.layout import KeysValues, LayerCache, Layout


class Implementation(NamedTuple):
    """How attention is computed where there is a cache.

    attend: as `attend`, which calls it. layout: makes the layout of the cache from the model's config.
    """

    attend: Callable[..., jax.Array]
    layout: Callable[[ModelConfig], Layout]


GROUPED = Implementation(attend_grouped, GroupedLayout.of)
STACKED = Implementation(attend_grouped, StackedLayout.of)


def implementation_of(config: ModelConfig) -> Implementation:
    """The implementation for prefill and event steps of a model."""
    return STACKED if config.decode_impl == "fused" else GROUPED


def attend(
    q: jax.Array,
    new_kv: KeysValues,
    layer_cache: LayerCache | None,
    segment_ids: jax.Array | None,
    config: ModelConfig,
    first: int,
    drop_key: jax.Array | None = None,
) -> jax.Array:
    """q [B, N, A, X, Y, h] -> [B, N, A, X, Y, h]: causal attention to the cache and to the new keys.

    new_kv: keys and values of the events of q, each [B, K, E, N, h]; of a part of an event, those of its first attributes, E of
    them. layer_cache: the events before them, None in training.
    segment_ids: int [B, N]; attention is restricted to equal ids. first: attribute of q[:, :, 0].
    drop_key: for dropout of the weights, without a cache; None drops nothing. ModelConfig refuses it for flash attention.
    """
    if layer_cache is not None:
        return implementation_of(config).attend(q, new_kv, layer_cache, segment_ids, config, first)
    if config.attention_impl == "flash" and config.supports_flash_attention:
        return flash_attention.attend(q, new_kv, segment_ids, config)
    return attend_grouped(q, new_kv, None, segment_ids, config, first, drop_key)
