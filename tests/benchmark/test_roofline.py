"""The cost of a step, counted by hand for a small model."""

import pytest

from sage_jax.benchmark.roofline import event_step_cost, last_level_cache, prefill_operations, training_operations
from tests.models.small import small_config


@pytest.mark.parametrize(("sharing", "heads"), [("mha", 40), ("mqa", 1)])
def test_bytes_and_operations_of_a_shared_projection(sharing, heads):
    config = small_config(kv_sharing=sharing)  # embed_dim 32, 2 layers, 40 heads of 2, MLP 48, five attributes
    layer = 32 * 80 + 32 * 2 * heads * 2 + 80 * 32 + 3 * 32 * 48 + 2 * 32  # query, key-value, output, MLP, norms
    weights = 5 * (2 * layer + 32) + 32 * (20 + 11 + 13 + 7 + 9)
    batch, events = 3, 7
    token = 2 * 2 * heads * 2  # layers, keys and values, heads, channels
    moved = 4 * (weights + batch * (5 * 5 * events * token + 5 * token))
    operations = batch * (2 * weights + 5 * 2 * 4 * 40 * 2 * 5 * events)
    assert event_step_cost(config, batch, events) == (moved, operations)


def test_attribute_kernels_count_once_and_own_scope_heads_attend_to_a_fifth():
    kinds = (dict(kv_sharing="mqa"), dict(attribute_scope="all"), dict(attribute_scope="own"))
    shared, every, own = (small_config(**kind) for kind in kinds)
    assert event_step_cost(every, 1, 9)[0] == event_step_cost(shared, 1, 9)[0] == event_step_cost(own, 1, 9)[0]
    pairs = 5 * 2 * 4 * 40 * 2 * 9
    assert event_step_cost(every, 1, 9)[1] - event_step_cost(own, 1, 9)[1] == pairs * 4
    assert prefill_operations(every, 1, 9) - prefill_operations(own, 1, 9) == 2 * 2 * 40 * 2 * 9**2 * (25 - 5)


def test_a_nested_event_uses_every_weight_once():
    nested = small_config(kv_sharing="mqa", architecture="nested")
    layer = 32 * 80 + 32 * 2 * 2 + 80 * 32 + 3 * 32 * 48 + 2 * 32
    decoder = 5 * (2 * 32 * 32 + 32) + 32  # an MLP and a norm for each attribute, and the norm after them
    weights = 2 * layer + 32 + decoder + 32 * (20 + 11 + 13 + 7 + 9)
    batch, events, key = 3, 7, 2 * 2 * 2  # layers, keys and values, channels
    moved = 4 * (weights + batch * (events + 1) * key)
    assert event_step_cost(nested, batch, events) == (moved, batch * (2 * weights + 2 * 4 * 40 * 2 * events))


def test_operations_of_a_train_step():
    mha, own = small_config(kv_sharing="mha"), small_config(attribute_scope="own")
    nested = small_config(kv_sharing="mqa", architecture="nested")
    batch, events, heads = 3, 8, 32 * (20 + 11 + 13 + 7 + 9)
    layer = 4 * 32 * 80 + 3 * 32 * 48 + 2 * 32  # query, key, value and output, MLP, norms
    weights = 5 * (2 * layer + 32) + heads  # a token uses one of the output heads and everything else
    pairs = (5 * events) ** 2 / 2  # each token attends to those before it
    forward = 2 * weights * events + 2 * 40 * 4 * 2 * pairs  # layers, heads, operations per channel, channels
    assert training_operations(mha, batch, events) == 3 * batch * forward

    layer = 2 * 32 * 80 + 32 * 2 * 2 + 3 * 32 * 48 + 2 * 32  # one KV head: a token uses that of its attribute
    weights, pairs = 5 * (2 * layer + 32) + heads, 5 * events**2 / 2  # and attends within its attribute
    assert training_operations(own, batch, events) == 3 * batch * (2 * weights * events + 2 * 40 * 4 * 2 * pairs)

    weights = 2 * layer + 32 + 5 * (2 * 32 * 32 + 32) + 32 + heads  # once per event, with the event decoder
    assert training_operations(nested, batch, events) == 3 * batch * (2 * weights * events + 2 * 40 * 4 * 2 * events**2 / 2)


def test_the_last_level_cache_is_the_one_of_the_highest_level(tmp_path):
    for index, (level, size) in enumerate([(1, "32K"), (3, "32M"), (2, "512K"), (9, "no size")]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "level").write_text(f"{level}\n")
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert last_level_cache(tmp_path) == 32 << 20
    assert last_level_cache(tmp_path / "not there") is None
