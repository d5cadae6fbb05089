"""Choosing a token from its logits: temperature, top-k, top-p and min-p."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax import struct
from sage_jax.errors import UserError

NEG_INF = -1e30  # the logit of an id that must not be chosen
BISECTION_STEPS = 26


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


def sample(keys: jax.Array, logits: jax.Array, allowed: jax.Array, sampling_params: SamplingParams) -> jax.Array:
    """Samples one id per row, int32 [B], from float32 logits [B, V] among the ids `allowed` [B, V], with a PRNG key per row.

    What a row draws does not depend on the other rows. Logits of bfloat16 would draw the first ids too often.
    """
    logits = jnp.where(allowed, logits, NEG_INF)
    temperature = sampling_params.temperature
    kept = filter_logits(logits / jnp.maximum(temperature, 1e-6)[:, None], sampling_params)
    sampled = jax.vmap(jax.random.categorical)(keys, kept)
    return jnp.where(temperature > 0, sampled, logits.argmax(axis=-1)).astype(jnp.int32)


def filter_logits(logits: jax.Array, sampling_params: SamplingParams) -> jax.Array:
    """logits [B, V] with NEG_INF for ids that top-k rules out, then for those that min-p or top-p rules out of the rest.

    Each filter runs only where a row of the batch has it. A row without it stays as it is.
    """
    top_k, top_p, min_p = sampling_params.top_k, sampling_params.top_p, sampling_params.min_p[:, None]
    has_top_k = (0 < top_k) & (top_k < logits.shape[-1])
    logits = jax.lax.cond(has_top_k.any(), _top_k, lambda logits, k: logits, logits, jnp.where(has_top_k, top_k, 0))
    floor = logits.max(axis=-1, keepdims=True) + jnp.log(jnp.maximum(min_p, 1e-30))
    nucleus = jax.lax.cond((top_p < 1).any(), _nucleus, lambda logits, top_p: logits, logits, top_p)
    return jnp.where(logits >= floor, nucleus, NEG_INF)


def _top_k(logits: jax.Array, top_k: jax.Array) -> jax.Array:
    """Keeps the top_k [B] largest of logits [B, V] and those equal to the smallest of them; all where top_k is 0."""
    V = logits.shape[-1]
    place = jnp.where(top_k > 0, V - top_k, 0)
    smallest = jnp.take_along_axis(jnp.sort(logits, axis=-1), place[:, None], axis=-1)
    return jnp.where(logits >= smallest, logits, NEG_INF)


def _nucleus(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """Keeps ids of at least probability p: the largest p such that these ids together reach top_p [B].

    Bisection finds p to within 2^-BISECTION_STEPS of the largest probability, in a quarter of the time of a sort. Ids of equal
    probability are kept or removed together. Rows with top_p = 1 keep all ids.
    """
    probability = jax.nn.softmax(logits, axis=-1)

    def bisect(_, bounds):
        low, high = bounds  # ids of at least `low` reach top_p; those of at least `high` do not
        middle = (low + high) / 2
        reaches = jnp.where(probability >= middle, probability, 0).sum(axis=-1, keepdims=True) >= top_p[:, None]
        return jnp.where(reaches, middle, low), jnp.where(reaches, high, middle)

    peak = probability.max(axis=-1, keepdims=True)
    threshold, _ = jax.lax.fori_loop(0, BISECTION_STEPS, bisect, (jnp.zeros_like(peak), 2 * peak))
    is_kept = probability >= jnp.minimum(threshold, peak)  # always the most likely id
    return jnp.where(is_kept | (top_p >= 1)[:, None], logits, NEG_INF)
