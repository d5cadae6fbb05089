"""The transformer, read at once and read piece by piece, is one function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.transformer import Transformer
from tests.models.small import NAMES, SHARINGS, parameters, random_events, small_config

B, N, A = 2, 9, 5
every_sharing = pytest.mark.parametrize("sharing", SHARINGS, ids=NAMES)


@functools.cache
def programs(config):
    """(full forward pass, whole events read behind a cache, one event read token by token), each compiled per shape."""
    model, params = Transformer(config), parameters(config)
    read = lambda tokens, cache, first: model.apply({"params": params}, tokens, cache, first, method="extend")
    heads = lambda hidden: tuple(
        model.apply({"params": params}, hidden[:, :, a - 1], a, method="logits") for a in range(A)
    )

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
    return programs(config)[0](events)


def stepped_logits(config, events, steps, room=12, start=None):
    """The logits at every position, `steps` events read at a time; 0 stands for one token at a time."""
    read = programs(config)[1 if steps else 2]
    cache = Cache.empty(config, events.shape[0], room)
    cache = cache if start is None else cache.replace(start=jnp.asarray(start, jnp.int32))
    parts = []
    for low in range(0, events.shape[1], max(steps, 1)):
        logits, cache = read(events[:, low : low + max(steps, 1)], cache)
        parts.append(logits)
    assert int(cache.length) == events.shape[1]
    return tuple(jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True))


def assert_close(actual, expected, tolerance=2e-5):
    for a, (left, right) in enumerate(zip(actual, expected, strict=True)):
        np.testing.assert_allclose(left, right, atol=tolerance, rtol=tolerance, err_msg=f"attribute {a}")


@every_sharing
def test_decode_equals_full_forward(sharing):
    """At every position, token by token, three events at a time and all at once; the cache has room to spare."""
    config = small_config(**sharing)
    events = random_events(config, B, N)
    expected = full_logits(config, events)
    assert float(jnp.std(expected[0])) > 0.1
    for steps in (0, 3, N):
        assert_close(stepped_logits(config, events, steps), expected)


# One of each way through attention: what rounding adds does not depend on how many heads share.
@pytest.mark.parametrize("sharing", [SHARINGS[1], SHARINGS[4], SHARINGS[-1]], ids=[NAMES[1], NAMES[4], NAMES[-1]])
def test_decode_equals_full_forward_in_bfloat16(sharing):
    """In rooms of two sizes; rounding, at 8 bits, moves no logit by more than a twentieth of their spread."""
    config = small_config(**sharing, dtype="bfloat16")
    events = random_events(config, B, N)
    expected = full_logits(config, events)
    for steps, room in ((0, 12), (0, 24), (N, 12)):
        for left, right in zip(stepped_logits(config, events, steps, room), expected, strict=True):
            assert float(jnp.abs(left - right).max() / right.std()) < 0.05


@every_sharing
def test_left_padding_changes_nothing(sharing):
    """Ragged prompts: a row behind padding, whatever the padding holds, is the row alone."""
    config = small_config(**sharing)
    events = random_events(config, B, N)
    alone = full_logits(config, jnp.roll(events, -4, axis=1))  # what is rolled behind row 1's end, it does not see
    padded = stepped_logits(config, events, N, start=[0, 4])
    assert_close([logits[1:, 4:] for logits in padded], [logits[1:, : N - 4] for logits in alone])
    assert_close([logits[:1] for logits in padded], [logits[:1] for logits in full_logits(config, events)])


@every_sharing
def test_no_token_sees_a_later_one(sharing):
    """Changing token (n, a) leaves all that is predicted before it, bit for bit, and changes something after it."""
    config = small_config(**sharing)
    events = random_events(config, B, N)
    before = full_logits(config, events)
    for n, a in ((0, 0), (3, 2), (5, 4), (N - 1, 3)):
        after = full_logits(config, events.at[0, n, a].set((events[0, n, a] + 1) % config.vocab_sizes[a]))
        changed = np.zeros((N, A), bool)  # by the token that is read: its logits are those of the next attribute
        for attribute in range(A):
            differs = (before[(attribute + 1) % A] != after[(attribute + 1) % A]).any(axis=-1)[0]
            changed[:, attribute] = differs
        first = n * A + a
        assert not changed.reshape(-1)[:first].any() and changed.reshape(-1)[first]


@pytest.mark.parametrize("sharing", [SHARINGS[1], SHARINGS[-2]], ids=["gqa", "mixed"])
def test_blocks_do_not_show(sharing):
    """Attention in blocks of queries has the values and the gradients of attention at once."""
    events = random_events(small_config(), 1, N)

    def loss(params, block):
        config = small_config(**sharing, query_block=block)
        logits = Transformer(config).apply({"params": params}, events)
        return sum(jnp.sum(jnp.sin(part)) for part in logits)

    params = parameters(small_config(**sharing))
    at_once, in_blocks = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, block) for block in (64, 4))
    np.testing.assert_allclose(at_once[0], in_blocks[0], rtol=1e-5)
    for left, right in zip(*map(jax.tree.leaves, (at_once[1], in_blocks[1])), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4 * float(jnp.abs(left).max()))


def test_own_scope_reads_its_own_attribute_only():
    """With one layer, a query head of scope own is blind to other attributes: only its own token's residual passes on."""
    config = small_config(scope="own", layers=1)
    model, params = Transformer(config), parameters(config)
    events = random_events(config, 1, N)
    output = params["block_0"]["attention"]["output"]
    blind = jnp.zeros_like(output).at[1].set(output[1])  # only the heads of attribute 1 are heard
    params = {**params, "block_0": {**params["block_0"], "attention": {**params["block_0"]["attention"], "output": blind}}}
    last = jax.jit(lambda events: model.apply({"params": params}, events)[0][0, -1])
    for a in range(A - 1):
        moved = events.at[0, 2, a].set((events[0, 2, a] + 1) % config.vocab_sizes[a])
        assert bool((last(moved) != last(events)).any()) == (a == 1)


def test_mqa_is_as_kvhs_with_one_projection_for_all():
    shared, specialised = small_config(sharing="mqa"), small_config(scope="all")
    params = parameters(shared)
    copied = dict(params)
    for name in (name for name in params if name.startswith("block")):
        attention = dict(params[name]["attention"])
        kernel = attention.pop("key_value")
        attention.update({f"key_value_{a}": kernel for a in range(A)})
        copied[name] = {**params[name], "attention": attention}
    events = random_events(shared, B, N)
    same = jax.jit(Transformer(specialised).apply)({"params": copied}, events)
    assert_close(same, full_logits(shared, events))


def test_the_cache_is_as_small_as_its_sharing():
    sizes = {config.name: Cache.empty(config, 2, 7).num_bytes for config in (small_config(**s) for s in SHARINGS)}
    token = 2 * 2 * 2 * 7 * A * 2 * 4  # layers, keys and values, batch, events, tokens, head width, bytes
    assert sizes == {
        "mha": 40 * token, "gqa-5": 5 * token, "mqa": token,
        **{f"as_kvhs-{scope}-{heads}": heads * token for scope in ("all", "own", "mixed") for heads in (1, 4)},
    }


@pytest.mark.parametrize("sharing", [dict(sharing="mha"), dict(scope="mixed")], ids=["mha", "mixed"])
def test_bfloat16_stays_near_float32(sharing):
    events = random_events(small_config(), B, N)
    wide = full_logits(small_config(**sharing), events)
    params = parameters(small_config(**sharing))
    narrow = jax.jit(Transformer(small_config(**sharing, dtype="bfloat16")).apply)({"params": params}, events)
    for left, right in zip(narrow, wide, strict=True):
        assert left.dtype == jnp.float32
        assert float(jnp.abs(left - right).mean() / right.std()) < 0.03


@pytest.mark.parametrize(
    "changes, field",
    [
        (dict(width=0), "model.width"),
        (dict(sharing="mla"), "model.sharing"),
        (dict(scope="most"), "model.scope"),
        (dict(dtype="float64"), "model.dtype"),
        (dict(head_width=3), "model.head_width"),
        (dict(sharing="gqa", kv_heads=3), "model.kv_heads"),
        (dict(sharing="gqa"), "model.kv_heads"),
        (dict(scope="own", heads_per_attribute=3), "model.heads"),
        (dict(scope="mixed", heads=15), "multiple of 10"),
    ],
)
def test_impossible_models_are_refused_by_field(changes, field):
    with pytest.raises(UserError, match=field):
        small_config(**changes)


def test_the_default_is_the_paper_size():
    config = ModelConfig(vocab_sizes=(388, 136, 399, 64, 36))
    assert (config.layers, config.width, config.name) == (12, 512, "as_kvhs-mixed-1")
