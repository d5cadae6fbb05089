"""Choosing a token from its logits: temperature, top-k, top-p and min-p."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.errors import UserError

NEG_INF = -1e30  # the logit of an id that must not be chosen
MOST_RANKED = 1024  # ids of a vocabulary in which all are compared with all


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How tokens are chosen. Raises UserError naming the field.

    temperature: 0 is greedy. top_k: keep the k most likely ids; 0 keeps all. top_p: keep the most likely ids that together
    reach this probability (nucleus sampling, arXiv 1904.09751). min_p: keep ids with at least this fraction of the largest
    probability (arXiv 2407.01082).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        for field, low, high in (("temperature", 0, 10), ("top_k", 0, 10**6), ("top_p", 0, 1), ("min_p", 0, 1)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise UserError(f"sampling.{field} is {value!r}; give a number from {low} to {high}")
        if not isinstance(self.top_k, int):
            raise UserError(f"sampling.top_k is {self.top_k!r}; give a whole number, 0 for all tokens")
        if self.top_p == 0:
            raise UserError("sampling.top_p is 0, which leaves nothing to choose; give 1 for no limit")


@struct.dataclass
class SamplingParams(struct.Struct):
    """A SamplingConfig of each row, on the device: temperature, top_p, min_p float32 [B], top_k int32 [B]."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array

    @classmethod
    def of(cls, config: SamplingConfig) -> "SamplingParams":
        """One row, as numpy arrays."""
        temperature, top_p, min_p = (
            struct.one_row(value, np.float32) for value in (config.temperature, config.top_p, config.min_p)
        )
        return cls(temperature, struct.one_row(config.top_k, np.int32), top_p, min_p)


def gumbel_noise(keys: jax.Array, vocab_sizes: Sequence[int]) -> jax.Array:
    """Gumbel noise for all attributes, float32 [B, V_0 + V_1 + ...], from a PRNG key per row [B]."""
    return jax.vmap(lambda key: jax.random.gumbel(key, (sum(vocab_sizes),)))(keys)


def by_attribute(noise: jax.Array, vocab_sizes: Sequence[int]) -> list[jax.Array]:
    """The noise of each attribute, float32 [B, V_a]."""
    return jnp.split(noise, list(itertools.accumulate(vocab_sizes))[:-1], axis=1)


def sample(
    noise: jax.Array,
    logits: jax.Array,
    allowed: jax.Array,
    sampling_params: SamplingParams,
    filter_logits: Callable[[jax.Array, SamplingParams], jax.Array] | None = None,
) -> jax.Array:
    """Samples one id per row, int32 [B], from float32 logits [B, V] among the ids `allowed` [B, V].

    noise: as of `gumbel_noise`; the largest sum of a logit and its noise is a sample of their softmax (arXiv 1411.0030). What a
    row draws does not depend on the other rows. Logits of bfloat16 would draw the first ids too often. filter_logits: one of
    the three functions below; by default that for the platform.
    """
    logits = jnp.where(allowed, logits, NEG_INF)
    temperature = sampling_params.temperature[:, None]
    kept = (filter_logits or filter_by_platform)(logits / jnp.maximum(temperature, 1e-6), sampling_params)
    return jnp.where(temperature > 0, kept + noise, logits).argmax(axis=-1).astype(jnp.int32)


def filter_by_platform(logits: jax.Array, sampling_params: SamplingParams) -> jax.Array:
    """logits [B, V] with NEG_INF for ids that top-k rules out, then for those that min-p or top-p rules out of the rest.

    A row without a filter stays as it is. Ids of equal logits are kept or removed together.
    """
    by_platform = functools.partial(jax.lax.platform_dependent, cpu=filter_by_search, default=filter_by_rank)
    return (by_platform if logits.shape[-1] <= MOST_RANKED else filter_by_search)(logits, sampling_params)


def filter_by_rank(logits: jax.Array, sampling_params: SamplingParams) -> jax.Array:
    """Compares all ids with all: one fusion for an accelerator, without a loop or a condition."""
    top_k, top_p, min_p = (each[:, None] for each in (sampling_params.top_k, sampling_params.top_p, sampling_params.min_p))
    peak = logits.max(axis=-1, keepdims=True)
    weight = jnp.exp(logits - peak)
    is_above = logits[:, :, None] > logits[:, None, :]
    rank = is_above.sum(axis=1, dtype=jnp.int32)
    mass_above = jnp.where(is_above, weight[:, :, None], 0).sum(axis=1)
    is_kept = (rank < top_k) | (top_k == 0)
    total = jnp.where(is_kept, weight, 0).sum(axis=-1, keepdims=True)
    is_kept &= (mass_above < top_p * total) | (top_p >= 1)
    return jnp.where(is_kept & (logits >= _floor(peak, min_p)), logits, NEG_INF)


def filter_by_search(logits: jax.Array, sampling_params: SamplingParams, bits: int = 1) -> jax.Array:
    """Searches for the least logit that top-k and top-p keep, each only if a row of the batch has it: least work, for a CPU.

    bits: as of `_least_kept`. More of them make fewer rounds of more work.
    """
    top_k, top_p, min_p = (each[:, None] for each in (sampling_params.top_k, sampling_params.top_p, sampling_params.min_p))
    peak = logits.max(axis=-1, keepdims=True)
    order = _ordered(logits)
    least = _least_kept(top_k > 0, order, jnp.ones_like(logits), jnp.minimum(top_k, logits.shape[-1]).astype(jnp.float32), bits)
    weight = jnp.where(order >= least, jnp.exp(logits - peak), 0)
    nucleus = _least_kept(top_p < 1, order, weight, top_p * weight.sum(axis=-1, keepdims=True), bits)
    is_kept = (order >= jnp.maximum(least, nucleus)) & (logits >= _floor(peak, min_p))
    return jnp.where(is_kept, logits, NEG_INF)


def _least_kept(applies: jax.Array, order: jax.Array, weight: jax.Array, target: jax.Array, bits: int) -> jax.Array:
    """int32 [B, 1]: the largest bound such that ids with at least this order weigh `target` [B, 1] together.

    order: int32 [B, V]. weight: float32 [B, V]. bits: of the bound that a round finds, a divisor of 32. The bound keeps all ids
    of rows where it does not apply, bool [B, 1].
    """
    digits = jax.lax.broadcasted_iota(jnp.int32, (1, 1 << bits, 1), 1)

    def find_digit(number: jax.Array, bound: jax.Array) -> jax.Array:
        shift = 32 - bits * (number + 1)
        bounds = bound[:, None] + (digits << shift)  # [B, 2^bits, 1]
        reaches = jnp.where(order[:, None] >= bounds, weight[:, None], 0).sum(axis=-1, keepdims=True) >= target[:, None]
        return bound + ((reaches & (digits > 0)).astype(jnp.int32).sum(axis=1) << shift)

    lowest = jnp.full_like(target, np.iinfo(np.int32).min, jnp.int32)
    rounds = jnp.where(applies[:, 0], 32 // bits, 0).max()
    return jnp.where(applies, jax.lax.fori_loop(0, rounds, find_digit, lowest), lowest)


def _ordered(x: jax.Array) -> jax.Array:
    """int32 numbers in the order of the float32 numbers x."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ np.int32(np.iinfo(np.int32).max), bits)


def _floor(peak: jax.Array, min_p: jax.Array) -> jax.Array:
    """The least logit that min-p keeps, where `peak` is the largest; both [B, 1]."""
    return peak + jnp.log(jnp.maximum(min_p, 1e-30))
