"""The models that run their layers once for an event: read at once and decoded token by token, each is one function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.delay import delayed
from sage_jax.models.forms import make_model
from tests.models.small import (
    FORMS,
    NAMES,
    SHARINGS,
    parameters,
    random_events,
    small_config,
)

B, N, A = 2, 9, 5
PROMPT = 3
every_form = pytest.mark.parametrize("form", FORMS, ids=["-".join(map(str, form.values())) for form in FORMS])


@functools.cache
def programs(config):
    """(full forward pass, prompt read, next logits and one token fed), compiled."""
    model, params = make_model(config), {"params": parameters(config)}

    def feed(carry, cache, token, attribute):
        return model.apply(params, carry, cache, token, attribute, method="feed")

    return (
        jax.jit(lambda events: model.apply(params, events)),
        jax.jit(lambda events, cache: model.apply(params, events, cache, method="read")),
        jax.jit(lambda carry, attribute: model.apply(params, carry, attribute, method="next_logits"), static_argnums=1),
        jax.jit(feed, static_argnums=3),
    )


def full_logits(config, events):
    return programs(config)[0](events)


def decoded_logits(config, events, start=(0, 0)):
    """The logits [B, N, V_a] of events behind a prompt of three, decoded with the true tokens; 0 where nothing is told."""
    _, read, next_logits, feed = programs(config)
    late = config.form == "delay"
    cache = Cache.empty(config, len(events), N + A).replace(start=jnp.asarray(start, jnp.int32))
    carry, cache = read(events[:, :PROMPT], cache)
    told = [np.zeros((B, N + 1, size), np.float32) for size in config.vocab_sizes]
    for step in range(PROMPT, N + (A - 1 if late else 0)):
        for a in range(A):
            event = step - a if late else step
            # As Transformer.__call__ has it, the first attribute's logits stand a place earlier than its token.
            if event <= N - (a > 0) and event >= PROMPT:
                told[a][:, event - (a == 0)] = next_logits(carry, a)
            token = events[:, event, a] if 0 <= event < N else jnp.zeros(B, jnp.int32)
            carry, cache = feed(carry, cache, token, a)
    return tuple(block[:, :N] for block in told)


def assert_same(decoded, full):
    for a, (left, right) in enumerate(zip(decoded, full, strict=True)):
        told = slice(PROMPT - (a == 0), N - (a == 0))
        assert float(jnp.std(right[:, told])) > 0.05
        np.testing.assert_allclose(left[:, told], right[:, told], atol=3e-5, rtol=3e-5, err_msg=f"attribute {a}")


@every_form
def test_decode_equals_full_forward(form):
    config = small_config(**form)
    events = random_events(config, B, N)
    assert_same(decoded_logits(config, events), full_logits(config, events))


# One of each kind; how many heads there are is tested in the flat model.
@pytest.mark.parametrize("sharing", SHARINGS[1::2], ids=NAMES[1::2])
def test_nested_decode_equals_full_forward_in_every_sharing(sharing):
    config = small_config(form="nested", **sharing)
    events = random_events(config, B, N)
    assert_same(decoded_logits(config, events), full_logits(config, events))


@every_form
def test_left_padding_changes_nothing(form):
    """The second row begins two events later than the first; before it stands padding."""
    config = small_config(**form)
    events = random_events(config, B, N).at[1, :2].set(0)
    alone = full_logits(config, jnp.roll(events, -2, axis=1))
    for a, (padded, right) in enumerate(zip(decoded_logits(config, events, (0, 2)), alone, strict=True)):
        told = slice(PROMPT - (a == 0), N - A)  # behind them the rolled row's own end is seen
        np.testing.assert_allclose(padded[1, told], right[1, PROMPT - 2 - (a == 0) : N - A - 2], atol=3e-5, rtol=3e-5)


@every_form
def test_no_token_sees_a_later_one(form):
    """Changing token (n, a) leaves what is foretold before it, bit for bit, and changes what is foretold after."""
    config = small_config(**form)
    events = random_events(config, 1, N)
    before = full_logits(config, events)
    # The step of the layers after which attribute a of event n is drawn, all of them from the state before it.
    later_by = [a if config.form == "delay" else int(0 < config.ahead <= a) for a in range(A)]
    for n, a in ((1, 0), (3, 2), (5, 4), (N - 2, 3), (4, 1)):
        after = full_logits(config, events.at[0, n, a].set(events[0, n, a] % (config.vocab_sizes[a] - 1) + 1))
        read = n + later_by[a]
        for attribute in range(A):
            # [N]: of the attribute of the event in each place
            changed = np.asarray((before[attribute] != after[attribute]).any(axis=-1)[0])
            changed = np.append(False, changed[:-1]) if attribute == 0 else changed
            order = np.arange(N) + later_by[attribute]
            together = {
                "nested": config.order.index(attribute) > config.order.index(a),
                "compound": a == 0 and attribute > 0,
            }
            assert not changed[order < read].any()
            assert (changed[order == read] == together.get(config.form, False)).all()
            assert changed[(order > read) & (np.arange(N) > 0)].all()


def test_delayed_places_each_attribute_a_step_later():
    events = jnp.arange(1, 1 + 4 * A).reshape(1, 4, A)
    steps = np.asarray(delayed(events, 6))[0]
    for t in range(6):
        for a in range(A):
            assert steps[t, a] == (events[0, t - a, a] if 0 <= t - a < 4 else 0)
    assert np.asarray(delayed(events[:, :1], 1)).tolist() == [[[1, 0, 0, 0, 0]]]
    assert np.asarray(delayed(events, 4)).tolist() == [steps[:4].tolist()]


def test_delay_adds_no_parameter_and_an_event_has_one_key():
    count = lambda config: sum(leaf.size for leaf in jax.tree.leaves(parameters(config)))
    pooled, delay, nested = (small_config(sharing="mqa", form=form) for form in ("pooled", "delay", "nested"))
    flat = small_config(sharing="mqa")
    assert count(delay) == count(pooled) == count(flat) - A * 32  # the flat model tells its attributes apart
    assert Cache.empty(nested, 2, 7).num_bytes * A == Cache.empty(flat, 2, 7).num_bytes
    specialised = small_config(scope="all", form="nested")
    assert Cache.empty(specialised, 2, 7).num_bytes == Cache.empty(flat, 2, 7).num_bytes


@pytest.mark.parametrize(
    "changes", [dict(form="tree"), dict(pooling="mean"), dict(inner="lstm"), dict(inner_width=-1), dict(ahead=2), dict(ahead=1)], ids=lambda c: next(iter(c))
)
def test_impossible_forms_are_refused_by_field(changes):
    with pytest.raises(UserError, match=f"model.{next(iter(changes))}"):
        ModelConfig(vocab_sizes=(9, 9), sharing="mqa", **changes)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (dict(form="flat", pooling="concat", inner="gru"), "mqa"),
        (dict(form="nested"), "nested-mqa"),
        (dict(form="nested", inner="gru"), "nested-gru-mqa"),
        (dict(form="nested", inner="attention", ahead=3), "nested3-attention-mqa"),
        (dict(form="pooled", inner="gru"), "pooled-mqa"),
        (dict(form="pooled", pooling="concat"), "pooled-concat-mqa"),
        (dict(form="compound", pooling="concat"), "compound-concat-mqa"),
    ],
)
def test_models_that_differ_have_names_that_differ(fields, name):
    assert small_config(**fields, sharing="mqa").name == name
