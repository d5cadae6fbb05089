"""The seam for attention kernels: an implementation with a cache layout of its own decodes what the default one decodes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.models import attend, cache
from sage_jax.models.attend import Implementation
from sage_jax.models.cache import Cache
from sage_jax.models.registry import build_model
from tests.models.small import join_values, parameters, random_events, small_config

B, N, A, CAPACITY = 2, 5, 5, 8


@dataclasses.dataclass(frozen=True)
class ByEvent:
    """Keys and values [B, S, K, E, h]: not those of any model here."""

    sizes: tuple[int, int, int]

    @classmethod
    def of(cls, config) -> "ByEvent":
        return cls((config.cached_kv_heads, config.keys_per_event, config.head_dim))

    def shapes(self, batch, max_events):
        return (((batch, max_events, *self.sizes),) * 2,)

    def max_events(self, buffers):
        return buffers[0][0].shape[1]

    def layer(self, buffers, number):
        return buffers[number]

    def append(self, buffers, new, length, slots=None):
        assert slots is None
        put = jax.vmap(lambda row, part, start: jax.lax.dynamic_update_slice_in_dim(row, part, start, 0))
        (old, added), = zip(buffers, new, strict=True)
        return (tuple(put(buffer, part.transpose(0, 3, 1, 2, 4), length) for buffer, part in zip(old, added, strict=True)),)


def attend_one_by_one(q, new_kv, layer_cache, segment_ids, config, first):
    """Each query head with all keys that it may attend to. Scope all only."""
    assert segment_ids is None and not config.num_own_scope_groups
    cached, S = layer_cache.cached, layer_cache.cached[0].shape[1]
    missing = config.keys_per_event - new_kv[0].shape[2]  # of an event that is being read
    new_kv = [jnp.pad(new, [(0, missing) if axis == 2 else (0, 0) for axis in range(5)]) for new in new_kv]
    keys, values = (
        jnp.concatenate([old, new.transpose(0, 3, 1, 2, 4)], axis=1) for old, new in zip(cached, new_kv, strict=True)
    )  # [B, S + N, K, E, h]
    _, N, A, _, Y, h = q.shape
    E = keys.shape[3]
    place = jnp.arange(S + N)[:, None] * E + jnp.arange(E)[None]  # of each key, new ones after the cache
    query_place = (S + jnp.arange(N))[:, None] * E + first + jnp.arange(A)[None]
    is_real = (jnp.arange(S + N)[None] < layer_cache.length[:, None]) | (jnp.arange(S + N)[None] >= S)
    mask = (place[None, None] <= query_place[:, :, None, None])[None] & is_real[:, None, None, :, None]
    keys, values = (jnp.repeat(part, Y // part.shape[2], axis=2) for part in (keys, values))  # of each query head
    scores = jnp.einsum("bnayh,bsyeh->bnayse", q[:, :, :, 0], keys) / h**0.5
    scores = jnp.where(mask[:, :, :, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores.reshape(*scores.shape[:4], -1), axis=-1).reshape(scores.shape)
    return jnp.einsum("bnayse,bsyeh->bnayh", weights, values)[:, :, :, None]


@pytest.mark.parametrize(
    "fields", [dict(kv_sharing="gqa", num_kv_heads=5), dict(attribute_scope="all", architecture="nested")], ids=join_values
)
def test_another_implementation_brings_its_own_layout(fields, monkeypatch):
    config = small_config(num_layers=1, num_heads=10, head_dim=4, **fields)
    model, params = build_model(config), {"params": parameters(config)}
    events = random_events(config, B, N)

    def decoded(params, events):
        state, logits = Cache.empty(config, B, CAPACITY), []
        before = jnp.zeros((B, A - 1, A), jnp.int32)
        carry, state = model.apply(params, events[:, :3], before, jnp.full(B, 3), state, method="prefill")
        state = state.advance(jnp.array([3, 2]))  # rows of different lengths
        for n in range(3, N):
            for a in range(A):
                logits.append(model.apply(params, carry, a, method="next_logits"))
                carry, state = model.apply(params, carry, state, events[:, n, a], a, method="decode_step")
            state = state.advance(jnp.ones(B, jnp.int32))
        return state, logits

    state, expected = jax.jit(decoded)(params, events)
    other = Implementation(attend_one_by_one, ByEvent.of)
    for module in (attend, cache):
        monkeypatch.setattr(module, "implementation_of", lambda config: other)
    changed, found = jax.jit(lambda *arguments: decoded(*arguments))(params, events)
    assert changed.buffers[0][0].shape == (B, CAPACITY, *ByEvent.of(config).sizes) != state.buffers[0][0].shape
    assert changed.max_events == state.max_events == CAPACITY and changed.num_bytes == state.num_bytes
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=3e-5, rtol=3e-5)
