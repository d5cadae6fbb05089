"""Sampling from hand-made logits."""

import functools

import jax
import numpy as np
import pytest

from sage_jax.decoding.sampling import (
    NEG_INF,
    SamplingConfig,
    SamplingParams,
    by_attribute,
    filter_by_rank,
    filter_by_search,
    gumbel_noise,
    sample,
)
from sage_jax.errors import UserError

PROBABILITIES = np.array([0.1, 0.4, 0.3, 0.15, 0.05])
LOGITS = np.log(PROBABILITIES.astype(np.float32))[None]
EVERY = np.ones((1, 5), bool)
FILTERS = {  # of a CPU, of accelerators, and of a kernel of a whole event step
    "search": jax.jit(filter_by_search),
    "rank": jax.jit(filter_by_rank),
    "digits": jax.jit(functools.partial(filter_by_search, bits=4)),
}
every_filter = pytest.mark.parametrize("name", FILTERS)


@jax.jit
def draw(keys, logits, allowed, sampling_params):
    """As decoding draws: the noise of several attributes is made at once."""
    sizes = 7, logits.shape[-1]
    _, noise = by_attribute(gumbel_noise(keys, sizes), sizes)
    return sample(noise, logits, allowed, sampling_params)


def params(rows: int, **config) -> SamplingParams:
    """The same settings in each of `rows` rows."""
    return jax.tree.map(lambda leaf: np.repeat(leaf, rows, axis=0), SamplingParams.of(SamplingConfig(**config)))


def kept(name: str, **config) -> list[int]:
    filtered = FILTERS[name](LOGITS, params(1, **config))
    return np.flatnonzero(np.asarray(filtered[0]) > NEG_INF / 2).tolist()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (dict(), [0, 1, 2, 3, 4]),
        (dict(top_k=2), [1, 2]),
        (dict(top_k=99), [0, 1, 2, 3, 4]),
        (dict(top_p=0.5), [1, 2]),
        (dict(top_p=0.39), [1]),
        (dict(top_p=0.71), [1, 2, 3]),
        (dict(top_p=1e-9), [1]),
        (dict(min_p=0.3), [1, 2, 3]),
        (dict(min_p=1.0), [1]),
        (dict(top_k=3, top_p=0.5, min_p=0.1), [1, 2]),
        (dict(top_k=2, top_p=0.5), [1]),  # 4/7 of what top-k keeps
    ],
)
@every_filter
def test_filter_keeps_the_expected_ids(name, config, expected):
    assert kept(name, **config) == expected


@every_filter
def test_nucleus_equals_that_of_a_sort(name):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 301)).astype(np.float32) * rng.uniform(0, 6, (200, 1)).astype(np.float32)
    logits[:, rng.permutation(301)[:100]] = NEG_INF
    for top_p in (0.05, 0.5, 0.9, 0.98, 0.999):
        nucleus = np.asarray(FILTERS[name](logits, params(200, top_p=top_p))) > NEG_INF / 2
        probability = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
        probability /= probability.sum(-1, keepdims=True)
        ranked = -np.sort(-probability)
        before = np.cumsum(ranked, axis=-1) - ranked
        sizes = (before < top_p).sum(axis=-1)
        # If a float32 sum is within rounding of top_p, one id more or less is also correct.
        assert (np.abs(nucleus.sum(-1) - sizes) <= 1).all() and (nucleus.sum(-1) == sizes).mean() > 0.97
        kept, removed = np.where(nucleus, probability, 2).min(-1), np.where(nucleus, -1, probability).max(-1)
        assert (kept > removed).all()


@every_filter
def test_top_k_equals_that_of_a_sort(name):
    """Ids of equal logits stay together, whatever their sign."""
    rng = np.random.default_rng(2)
    logits = np.round(rng.normal(size=(50, 301)) * 5).astype(np.float32)
    logits[:, rng.permutation(301)[:100]] = NEG_INF
    for top_k in (1, 2, 40, 200, 300):
        smallest = np.sort(logits, axis=-1)[:, -top_k][:, None]
        found = np.asarray(FILTERS[name](logits, params(50, top_k=top_k)))
        assert np.array_equal(found, np.where(logits >= smallest, logits, NEG_INF)), top_k


def draw_samples(count: int, allowed=EVERY, **config) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), count)
    repeat = lambda array: np.repeat(array, count, axis=0)
    return np.asarray(draw(keys, repeat(LOGITS), repeat(allowed), params(count, **config)))


def test_samples_follow_the_probabilities():
    frequency = np.bincount(draw_samples(20_000), minlength=5) / 20_000
    np.testing.assert_allclose(frequency, PROBABILITIES, atol=0.012)
    sharper = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    frequency = np.bincount(draw_samples(20_000, temperature=0.5), minlength=5) / 20_000
    np.testing.assert_allclose(frequency, sharper, atol=0.012)


def test_greedy_takes_the_most_likely_allowed_id():
    assert set(draw_samples(50, temperature=0)) == {1}
    assert set(draw_samples(50, allowed=np.array([[True, False, False, True, True]]), temperature=0)) == {3}


def test_ids_that_are_not_allowed_are_never_sampled():
    allowed = np.array([[False, False, False, False, True]])
    for config in (dict(), dict(temperature=10), dict(top_k=1), dict(top_p=0.1), dict(min_p=1.0)):
        assert set(draw_samples(200, allowed=allowed, **config)) == {4}


def test_each_row_uses_its_own_key():
    keys = jax.random.split(jax.random.key(3), 4)
    logits, allowed = np.repeat(LOGITS, 4, 0), np.repeat(EVERY, 4, 0)
    together = draw(keys, logits, allowed, params(4))
    alone = [int(draw(keys[row : row + 1], LOGITS, EVERY, params(1))[0]) for row in range(4)]
    assert together.tolist() == alone


@every_filter
def test_each_row_has_its_own_settings(name):
    """Ids and filtered logits of a row are those of the row alone, bit for bit."""
    configs = [
        dict(),
        dict(temperature=0.0),
        dict(temperature=0.3, top_k=40),
        dict(temperature=2.0, top_p=0.6),
        dict(min_p=0.2),
        dict(top_k=5, top_p=0.9, min_p=0.05),
        dict(top_k=10**6),
    ]
    rows = len(configs)
    rng = np.random.default_rng(1)
    logits, allowed = (rng.normal(size=(rows, 101)) * 3).astype(np.float32), rng.random((rows, 101)) < 0.8
    keys = jax.random.split(jax.random.key(4), rows)
    each = [params(1, **config) for config in configs]
    mixed = jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)
    filtered, drawn = jax.device_get((FILTERS[name](logits, mixed), draw(keys, logits, allowed, mixed)))
    assert len({int((row > NEG_INF / 2).sum()) for row in filtered}) >= 5
    for row, alone in enumerate(each):
        part = slice(row, row + 1)
        assert np.array_equal(filtered[part], FILTERS[name](logits[part], alone)), configs[row]
        assert np.array_equal(drawn[part], draw(keys[part], logits[part], allowed[part], alone)), configs[row]


INVALID = [("temperature", -1), ("top_k", -2), ("top_p", 0), ("top_p", 1.5), ("min_p", "a"), ("top_k", 2.5), ("top_k", 2.0)]
NO_NUMBER = [(field, value) for field in ("temperature", "top_k", "top_p", "min_p") for value in (True, float("nan"), None)]


@pytest.mark.parametrize(("field", "value"), INVALID + NO_NUMBER)
def test_invalid_settings_are_rejected_by_field(field, value):
    with pytest.raises(UserError, match=f"sampling.{field}"):
        SamplingConfig(**{field: value})
