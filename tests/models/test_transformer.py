"""The flat transformer: decoding with a cache equals the full forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.transformer import Transformer
from tests.models.small import FOUR_KV_HEADS, SHARINGS, join_values, parameters, random_events, small_config

B, N, A = 2, 9, 5
DEEP = (SHARINGS[0], SHARINGS[5])  # with two layers; the others have the same layers around other heads
every_sharing = pytest.mark.parametrize("sharing", SHARINGS, ids=join_values)


def config_of(sharing):
    return small_config(**sharing, num_layers=2 if sharing in DEEP else 1)


@functools.cache
def programs(config):
    """(full forward pass, cached pass over whole events, cached pass over one event token by token), compiled per shape."""
    model, params = Transformer(config), parameters(config)
    read = lambda tokens, cache, first: model.apply({"params": params}, tokens, cache, first, method="_read")
    heads = lambda hidden: tuple(model.apply({"params": params}, hidden[:, :, a - 1], a, method="logits") for a in range(A))

    def by_event(events, cache):
        hidden, cache = read(events, cache, 0)
        return heads(hidden), cache

    def by_token(event, cache):
        hidden = []
        for a in range(A):
            token, cache = read(event[:, :, a : a + 1], cache, a)
            hidden.append(token)
        return heads(jnp.concatenate(hidden, axis=2)), cache

    return tuple(map(jax.jit, (lambda events: model.apply({"params": params}, events), by_event, by_token)))


def full_logits(config, events):
    return jax.device_get(programs(config)[0](events))


def cached_logits(config, events, calls, capacity=12):
    """The logits at every position. calls: the number of events that each call reads, 0 for one event token by token."""
    cache = Cache.empty(config, events.shape[0], capacity)
    parts, low = [], 0
    for count in calls:
        read, count = programs(config)[1 if count else 2], max(count, 1)
        logits, cache = read(events[:, low : low + count], cache)
        cache, low = cache.advance(np.full(len(events), count, np.int32)), low + count
        parts.append(jax.device_get(logits))
    assert low == events.shape[1]
    return tuple(np.concatenate(part, axis=1) for part in zip(*parts, strict=True))


def changed_at(events, n, a, config):
    """`events` with another token (n, a) in the first row."""
    other = events.copy()
    other[0, n, a] = (events[0, n, a] + 1) % config.vocab_sizes[a]
    return other


def assert_close(actual, expected, tolerance=2e-5):
    for a, (left, right) in enumerate(zip(actual, expected, strict=True)):
        np.testing.assert_allclose(left, right, atol=tolerance, rtol=tolerance, err_msg=f"attribute {a}")


@pytest.mark.parametrize("sharing", SHARINGS + FOUR_KV_HEADS, ids=join_values)
def test_decode_equals_full_forward(sharing):
    """At every position: token by token, and three events per call, before and after each other; with unused capacity."""
    config = config_of(sharing)
    events = random_events(config, B, N)
    expected = full_logits(config, events)
    assert np.std(expected[0]) > 0.1
    for calls in ([0] * N, [3, 3, 3], [3, 0, 0, 3, 0]):
        assert_close(cached_logits(config, events, calls), expected)


# The sharing that uses every code path of attention.
@pytest.mark.parametrize("sharing", [SHARINGS[5]], ids=join_values)
def test_decode_equals_full_forward_in_bfloat16(sharing):
    """With two cache capacities: rounding to 8 bits moves no logit by more than a twentieth of their standard deviation."""
    config = small_config(**sharing, num_layers=1, dtype="bfloat16")
    events = random_events(config, B, N)
    expected = full_logits(config, events)
    for calls, capacity in (([0] * N, 24), ([N], 12)):
        for left, right in zip(cached_logits(config, events, calls, capacity), expected, strict=True):
            assert np.abs(left - right).max() / right.std() < 0.05


@every_sharing
def test_rows_of_one_cache_have_lengths_of_their_own(sharing):
    """Whatever the cache holds after them. Whole events and single tokens."""
    config = config_of(sharing)
    events = random_events(config, B, N)
    expected = full_logits(config, events)
    by_event, by_token = programs(config)[1:]
    cache = Cache.empty(config, B, 12)
    first, cache = by_event(events[:, :3], cache)
    cache = cache.advance(np.array([3, 0], np.int32))  # the second row reads its first three events again
    for read, count in ((by_event, 3), (by_token, 1), (by_token, 1)):
        starts = cache.length.tolist()
        logits, cache = read(np.stack([row[start : start + count] for row, start in zip(events, starts, strict=True)]), cache)
        for row, start in enumerate(starts):
            found = [each[row] for each in jax.device_get(logits)]
            assert_close(found, [each[row, start : start + count] for each in expected])
        cache = cache.advance(np.full(B, count, np.int32))
    assert cache.length.tolist() == [8, 5]
    assert_close(first, [logits[:, :3] for logits in expected])


@every_sharing
def test_attention_is_causal(sharing):
    """Changing token (n, a) leaves earlier logits bitwise equal and changes the logits at the token itself."""
    config = config_of(sharing)
    events = random_events(config, B, N)
    before = full_logits(config, events)
    for n, a in ((0, 0), (3, 2), (5, 4), (N - 1, 3)):
        after = full_logits(config, changed_at(events, n, a, config))
        changed = np.zeros((N, A), bool)  # by input token, whose logits are those of the next attribute
        for attribute in range(A):
            differs = (before[(attribute + 1) % A] != after[(attribute + 1) % A]).any(axis=-1)[0]
            changed[:, attribute] = differs
        first = n * A + a
        assert not changed.reshape(-1)[:first].any() and changed.reshape(-1)[first]


@pytest.mark.parametrize("sharing", [SHARINGS[1], SHARINGS[5]], ids=join_values)
def test_chunked_attention_equals_one_chunk(sharing):
    """Values and gradients do not depend on the chunk size."""
    events = random_events(small_config(), 1, N)

    def loss(params, chunk):
        config = small_config(**sharing, num_layers=1, query_chunk_size=chunk)
        logits = Transformer(config).apply({"params": params}, events)
        return sum(jnp.sum(jnp.sin(part)) for part in logits)

    params = parameters(small_config(**sharing, num_layers=1))
    whole, chunked = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, chunk) for chunk in (64, 4))
    np.testing.assert_allclose(whole[0], chunked[0], rtol=1e-5)
    for left, right in zip(*map(jax.tree.leaves, jax.device_get((whole[1], chunked[1]))), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4 * np.abs(left).max())


def test_own_scope_heads_attend_to_their_attribute_only():
    """In a one-layer model with the output of one head group only, changes of other attributes have no effect."""
    config = small_config(attribute_scope="own", num_layers=1)
    model, params = Transformer(config), parameters(config)
    events = random_events(config, 1, N)
    output = params["block_0"]["attention"]["output"]
    one_group = np.zeros_like(output)
    one_group[1] = output[1]  # the heads of attribute 1
    attention = {**params["block_0"]["attention"], "output": one_group}
    params = {**params, "block_0": {**params["block_0"], "attention": attention}}
    last = jax.jit(lambda events: model.apply({"params": params}, events)[0][0, -1])
    for a in range(A - 1):
        assert np.array_equal(last(changed_at(events, 2, a, config)), last(events)) == (a != 1)


def test_mqa_equals_as_kvhs_with_equal_projections():
    shared, per_attribute = small_config(kv_sharing="mqa"), small_config(attribute_scope="all")
    params = parameters(shared)
    copied = dict(params)
    for name in (name for name in params if name.startswith("block")):
        attention = dict(params[name]["attention"])
        kernel = attention.pop("key_value")
        attention.update({f"key_value_{a}": kernel for a in range(A)})
        copied[name] = {**params[name], "attention": attention}
    events = random_events(shared, B, N)
    logits = jax.jit(Transformer(per_attribute).apply)({"params": copied}, events)
    assert_close(logits, full_logits(shared, events))


def test_cache_size_is_proportional_to_kv_heads():
    configs = [small_config(**sharing) for sharing in SHARINGS + FOUR_KV_HEADS]
    sizes = {config.name: Cache.empty(config, 2, 7).num_bytes for config in configs}
    token = 2 * 2 * 2 * 7 * A * 2 * 4  # layers, keys and values, batch, events, tokens, head_dim, bytes
    assert sizes == {
        "mha": 40 * token,
        "gqa-5": 5 * token,
        "mqa": token,
        **{f"as_kvhs-{scope}-{heads}": heads * token for scope in ("all", "own", "mixed") for heads in (1, 4)},
    }


@pytest.mark.parametrize("sharing", [dict(kv_sharing="mha"), dict(attribute_scope="mixed")], ids=["mha", "mixed"])
def test_bfloat16_is_close_to_float32(sharing):
    events = random_events(small_config(), B, N)
    float32 = full_logits(small_config(**sharing), events)
    params = parameters(small_config(**sharing))
    bfloat16 = jax.jit(Transformer(small_config(**sharing, dtype="bfloat16")).apply)({"params": params}, events)
    for left, right in zip(jax.device_get(bfloat16), float32, strict=True):
        assert left.dtype == np.float32
        assert np.abs(left - right).mean() / right.std() < 0.03


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (dict(embed_dim=0), "model.embed_dim"),
        (dict(kv_sharing="mla"), "model.kv_sharing"),
        (dict(attribute_scope="most"), "model.attribute_scope"),
        (dict(dtype="float64"), "model.dtype"),
        (dict(head_dim=3), "model.head_dim"),
        (dict(kv_sharing="gqa", num_kv_heads=3), "model.num_kv_heads"),
        (dict(kv_sharing="gqa"), "model.num_kv_heads"),
        (dict(attribute_scope="own", kv_heads_per_attribute=3), "model.num_heads"),
        (dict(attribute_scope="mixed", num_heads=15), "multiple of 10"),
    ],
)
def test_invalid_config_is_rejected_by_field(changes, field):
    with pytest.raises(UserError, match=field):
        small_config(**changes)


def test_default_is_the_published_size():
    config = ModelConfig(vocab_sizes=(388, 136, 399, 64, 36))
    assert (config.num_layers, config.embed_dim, config.name) == (12, 512, "as_kvhs-mixed-1")
