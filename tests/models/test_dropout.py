"""Dropout: only with a key, the same with the same key, and on what each of the three rates names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.errors import UserError
from sage_jax.models.dropout import DROPOUT, drop
from sage_jax.models.registry import build_model
from tests.models.small import join_values, parameters, random_events, small_config

RATES = ("dropout_embedding", "dropout_attention", "dropout_residual")
FORMS = [
    dict(architecture="flat", attribute_scope="mixed"),
    dict(architecture="nested", lookahead=2, kv_sharing="mqa"),
    dict(architecture="pooled", kv_sharing="mha"),
]


@pytest.mark.parametrize("form", FORMS, ids=join_values)
def test_a_model_drops_with_a_key_alone_and_each_rate_counts(form):
    config = small_config(num_layers=1, **form)
    events, params = random_events(config, 2, 6), parameters(config)

    def logits(key=None, **rates):
        rngs = None if key is None else {DROPOUT: key}
        found = build_model(dataclasses.replace(config, **rates)).apply({"params": params}, events, rngs=rngs)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(found)])

    @jax.jit
    def all_logits(keys):
        """Without dropout, with all rates and no key, and [rate, key, ...]."""
        each = [jax.vmap(lambda key, rate=rate: logits(key, **{rate: 0.5}))(keys) for rate in RATES]
        return logits(), logits(**dict.fromkeys(RATES, 0.5)), jnp.stack(each)

    plain, without_key, dropped = map(np.asarray, all_logits(jax.random.split(jax.random.key(0))[jnp.array([0, 0, 1])]))
    np.testing.assert_array_equal(plain, without_key)
    for one, same, other in dropped:
        np.testing.assert_array_equal(one, same)
        assert (one != other).any() and (one != plain).any()


def test_drop_keeps_the_mean_and_scales_what_it_keeps():
    dropped = np.asarray(drop(jnp.ones((400, 100)), 0.2, jax.random.key(0)))
    np.testing.assert_allclose(np.unique(dropped), [0, 1.25])
    assert abs(dropped.mean() - 1) < 0.01
    assert drop(jnp.ones(3, jnp.bfloat16), 0.2, jax.random.key(0)).dtype == jnp.bfloat16


def test_every_chunk_of_queries_has_a_mask_of_its_own():
    """Four events with the same content: their chunks of one query would otherwise lose the same keys."""
    config = small_config(num_layers=1, architecture="pooled", kv_sharing="mha", query_chunk_size=1, dropout_attention=0.5)
    events = jnp.broadcast_to(random_events(config, 1, 1), (1, 8, len(config.vocab_sizes)))
    model = build_model(config)
    apply = jax.jit(lambda key: model.apply({"params": parameters(config)}, events, rngs={DROPOUT: key})[0])
    onset = apply(jax.random.key(0))
    # Every value that is averaged is the same, so that an event differs from the next one by its mask alone.
    assert len(np.unique(np.asarray(onset)[0, :, 0].round(4))) > 4


def test_a_rate_out_of_range_and_flash_attention_are_refused_by_name():
    with pytest.raises(UserError, match=r"model\.dropout_residual is 1\.0; give a number from 0 to below 1"):
        small_config(dropout_residual=1.0)
    with pytest.raises(UserError, match=r"model\.dropout_attention is 0\.1, which attention_impl = flash can't do"):
        small_config(dropout_attention=0.1, attention_impl="flash")
