"""Event-level models: decoding token by token equals the full forward pass."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.delay import delayed
from sage_jax.models.registry import abstract_params, build_model, inference_config
from tests.models.small import EVENT_LEVEL, SHARINGS, join_values, parameters, random_events, small_config

B, N, A = 2, 9, 5
PROMPT = 3
DEEP = (EVENT_LEVEL[0], EVENT_LEVEL[-1])  # with two layers; the others have the same layers around other events
every_architecture = pytest.mark.parametrize("fields", EVENT_LEVEL, ids=join_values)


def config_of(fields):
    return small_config(**fields, num_layers=2 if fields in DEEP else 1)


@functools.cache
def programs(config):
    """(full forward pass, prefill, step), compiled. A step predicts and reads one token after another of each attribute."""
    model, params = build_model(config), {"params": parameters(config)}

    def prefill(events, before, count, cache):
        return model.apply(params, events, before, count, cache, method="prefill")

    def step(carry, cache, tokens):
        logits = []
        for a in range(A):
            logits.append(model.apply(params, carry, a, method="next_logits"))
            carry, cache = model.apply(params, carry, cache, tokens[a], a, method="decode_step")
        return logits, carry, cache

    return jax.jit(lambda events: model.apply(params, events)), jax.jit(prefill), jax.jit(step)


def full_logits(config, events):
    return programs(config)[0](events)


def tokens_at(events, numbers, attribute):
    """int32 [B]: the tokens of an attribute of each row's event `numbers` [B], PAD where there is none."""
    inside = (numbers >= 0) & (numbers < events.shape[1])
    return np.where(inside, np.asarray(events)[np.arange(len(events)), np.clip(numbers, 0, N - 1), attribute], 0)


def decoded_logits(config, events, prompts):
    """The logits [B, N, V] of the events after `prompts`, decoded with the true tokens; 0 elsewhere.

    prompts: for each chunk of a prefill, the number of events of each row, int [B].
    """
    _, prefill, read_step = programs(config)
    cache, length = Cache.empty(config, len(events), N + 2 * A), np.zeros(len(events), int)
    read = lambda first, size: jnp.stack(
        [tokens_at(events, number, a) for number in first + np.arange(size)[:, None] for a in range(A)], axis=1
    ).reshape(len(events), size, A)
    for count in map(np.asarray, prompts):
        # After a row's `count` events come others, which are not read.
        carry, cache = prefill(read(length, PROMPT), read(length - A + 1, A - 1), jnp.asarray(count), cache)
        cache, length = cache.advance(jnp.asarray(count)), length + count
    logits = [np.zeros((B, N + 1, size), np.float32) for size in config.vocab_sizes]
    delays = np.arange(A) * (config.architecture == "delay")
    for step in range(N + delays[-1] - length.min()):
        numbers = [length + step - delays[a] for a in range(A)]
        tokens = [np.asarray(tokens_at(events, number, a), np.int32) for a, number in enumerate(numbers)]
        predicted, carry, cache = read_step(carry, cache, tokens)
        for a, event in enumerate(numbers):
            found = np.asarray(predicted[a])
            for row in np.flatnonzero((event >= length) & (event < N + (a == 0))):
                # As in Transformer.__call__, the first attribute's logits are one position before its token.
                logits[a][row, event[row] - (a == 0)] = found[row]
        cache = cache.advance(jnp.ones(len(events), jnp.int32))
    return tuple(block[:, :N] for block in logits)


def assert_same(decoded, full, first):
    """That both have the same logits of each row's events from first [B] on."""
    for a, (left, right) in enumerate(zip(decoded, full, strict=True)):
        for row, start in enumerate(first):
            part = row, slice(start - (a == 0), N - (a == 0))
            assert np.std(right[part]) > 0.05
            np.testing.assert_allclose(left[part], right[part], atol=3e-5, rtol=3e-5, err_msg=f"row {row}, attribute {a}")


@every_architecture
def test_decode_equals_full_forward(fields):
    """After one chunk, and after two of which the second has other lengths. Each row of the cache is at its own event."""
    config = config_of(fields)
    events = random_events(config, B, N)
    for prompts in ([(3, 1)], [(3, 3), (1, 3)]):
        assert_same(decoded_logits(config, events, prompts), full_logits(config, events), np.sum(prompts, axis=0))


# The others are tested with the flat model.
@pytest.mark.parametrize("sharing", [SHARINGS[1], *SHARINGS[3:]], ids=join_values)
def test_nested_decode_equals_full_forward_in_every_sharing(sharing):
    config = small_config(architecture="nested", num_layers=1, **sharing)
    events = random_events(config, B, N)
    assert_same(decoded_logits(config, events, [(1, 3)]), full_logits(config, events), (1, 3))


@every_architecture
def test_predictions_are_causal(fields):
    """Changing token (n, a) leaves earlier predictions bitwise equal and changes later ones."""
    config = config_of(fields)
    events = random_events(config, B, N)
    before = full_logits(config, events)
    # Attribute a of event n is input of backbone step n + delays[a], and is predicted from the state of the step before.
    delays = [a if config.architecture == "delay" else int(0 < config.lookahead <= a) for a in range(A)]
    for n, a in ((1, 0), (3, 2), (5, 4), (N - 2, 3), (4, 1)):
        other = np.array(events)
        other[0, n, a] = events[0, n, a] % (config.vocab_sizes[a] - 1) + 1
        after = full_logits(config, other)
        changed_step = n + delays[a]
        for attribute in range(A):
            # bool [N]: whether the prediction of this attribute of each event changed
            changed = (np.asarray(before[attribute]) != np.asarray(after[attribute])).any(axis=-1)[0]
            changed = np.append(False, changed[:-1]) if attribute == 0 else changed
            step = np.arange(N) + delays[attribute]
            is_conditioned = {
                "nested": config.decode_order.index(attribute) > config.decode_order.index(a),
                "compound": a == 0 and attribute > 0,
            }
            assert not changed[step < changed_step].any()
            assert (changed[step == changed_step] == is_conditioned.get(config.architecture, False)).all()
            assert changed[(step > changed_step) & (np.arange(N) > 0)].all()


@every_architecture
def test_abstract_parameters_are_those_of_the_model(fields):
    config = small_config(**fields, num_layers=2)
    real = jax.eval_shape(build_model(config).init, jax.random.key(0), np.zeros((1, 2, A), np.int32))["params"]
    assert abstract_params(config) == real


def test_delayed_shifts_each_attribute_by_one_more_step():
    events = jnp.arange(1, 1 + 4 * A).reshape(1, 4, A)
    steps = np.asarray(delayed(events, 6))[0]
    for t in range(6):
        for a in range(A):
            assert steps[t, a] == (events[0, t - a, a] if 0 <= t - a < 4 else 0)
    assert np.asarray(delayed(events[:, :1], 1)).tolist() == [[[1, 0, 0, 0, 0]]]
    assert np.asarray(delayed(events, 4)).tolist() == [steps[:4].tolist()]


def test_number_of_parameters_and_cache_size():
    count = lambda config: sum(leaf.size for leaf in jax.tree.leaves(parameters(config)))
    pooled, delay, nested = (small_config(kv_sharing="mqa", architecture=name) for name in ("pooled", "delay", "nested"))
    flat = small_config(kv_sharing="mqa")
    assert count(delay) == count(pooled) == count(flat) - A * 32  # the flat model has attribute embeddings
    assert Cache.empty(nested, 2, 7).num_bytes * A == Cache.empty(flat, 2, 7).num_bytes
    per_attribute = small_config(attribute_scope="all", architecture="nested")
    assert Cache.empty(per_attribute, 2, 7).num_bytes == Cache.empty(flat, 2, 7).num_bytes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "tree"),
        ("pooling", "mean"),
        ("event_decoder", "lstm"),
        ("event_decoder_dim", -1),
        ("lookahead", 2),
        ("lookahead", 1),
    ],
)
def test_invalid_config_is_rejected_by_field(field, value):
    with pytest.raises(UserError, match=f"model.{field}"):
        ModelConfig(vocab_sizes=(9, 9), kv_sharing="mqa", **{field: value})


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (dict(architecture="flat", pooling="concat", event_decoder="gru"), "mqa"),
        (dict(architecture="nested"), "nested-mqa"),
        (dict(architecture="nested", event_decoder="gru"), "nested-gru-mqa"),
        (dict(architecture="nested", event_decoder="attention", lookahead=3), "nested3-attention-mqa"),
        (dict(architecture="pooled", event_decoder="gru"), "pooled-mqa"),
        (dict(architecture="pooled", pooling="concat"), "pooled-concat-mqa"),
        (dict(architecture="compound", pooling="concat"), "compound-concat-mqa"),
    ],
)
def test_name_has_every_field_that_differs_from_the_default(fields, name):
    assert small_config(**fields, kv_sharing="mqa").name == name


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("cpu", ("float32", "xla")), ("gpu", ("bfloat16", "fused")), ("tpu", ("bfloat16", "fused"))],
)
def test_a_trained_model_is_used_in_float32_on_a_cpu(platform, expected):
    trained = small_config(architecture="nested", dtype="bfloat16", decode_impl="fused")
    used = inference_config(trained, types.SimpleNamespace(platform=platform))
    assert (used.dtype, used.decode_impl) == expected
