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

    @property
    def sampling_params(self) -> "SamplingParams":
        """The same settings as arrays."""
        values = jax.device_put([np.float32(value) for value in (self.temperature, self.top_p, self.min_p)])
        return SamplingParams(*values, top_k=self.top_k)


@struct.dataclass
class SamplingParams(struct.Struct):
    """SamplingConfig on the device. All fields but top_k are traced: changing one compiles nothing."""

    temperature: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    top_k: int = struct.field(pytree_node=False, default=0)


def sample(keys: jax.Array, logits: jax.Array, allowed: jax.Array, sampling_params: SamplingParams) -> jax.Array:
    """Samples one id per row, int32 [B], from logits [B, V] among the ids `allowed` [B, V], with a PRNG key per row [B]."""
    logits = jnp.where(allowed, logits, NEG_INF)
    temperature = jnp.maximum(sampling_params.temperature, 1e-6)
    sampled = jax.vmap(jax.random.categorical)(keys, filter_logits(logits / temperature, sampling_params))
    return jnp.where(sampling_params.temperature > 0, sampled, logits.argmax(axis=-1)).astype(jnp.int32)


def filter_logits(logits: jax.Array, sampling_params: SamplingParams) -> jax.Array:
    """logits [B, V] with NEG_INF for ids that top-k rules out, then for those that min-p or top-p rules out of the rest."""
    if 0 < sampling_params.top_k < logits.shape[-1]:
        smallest = jax.lax.top_k(logits, sampling_params.top_k)[0][:, -1:]
        logits = jnp.where(logits >= smallest, logits, NEG_INF)
    floor = logits.max(axis=-1, keepdims=True) + jnp.log(jnp.maximum(sampling_params.min_p, 1e-30))
    nucleus = jax.lax.cond(sampling_params.top_p < 1, _nucleus, lambda logits, top_p: logits, logits, sampling_params.top_p)
    return jnp.where(logits >= floor, nucleus, NEG_INF)


def _nucleus(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """Keeps ids of at least probability p: the largest p such that these ids together reach top_p.

    Bisection finds p to within 2^-BISECTION_STEPS of the largest probability, in a quarter of the time of a sort. Ids of equal
    probability are kept or removed together.
    """
    probability = jax.nn.softmax(logits, axis=-1)

    def bisect(_, bounds):
        low, high = bounds  # ids of at least `low` reach top_p; those of at least `high` do not
        middle = (low + high) / 2
        reaches = jnp.where(probability >= middle, probability, 0).sum(axis=-1, keepdims=True) >= top_p
        return jnp.where(reaches, middle, low), jnp.where(reaches, high, middle)

    peak = probability.max(axis=-1, keepdims=True)
    threshold, _ = jax.lax.fori_loop(0, BISECTION_STEPS, bisect, (jnp.zeros_like(peak), 2 * peak))
    return jnp.where(probability >= jnp.minimum(threshold, peak), logits, NEG_INF)  # always keeps the most likely id
