"""Choosing a token from its logits."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from sage_jax.errors import UserError

NEVER = -1e30  # the logit of what may not be chosen
HALVINGS = 26


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How tokens are chosen. Raises UserError naming the field.

    temperature: 0 is greedy. top_k: the k likeliest only, 0 for all. top_p: the likeliest that together reach this
    probability (nucleus sampling, arXiv 1904.09751). min_p: those of at least this share of the likeliest one's
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
    def knobs(self) -> "Knobs":
        values = (jnp.float32(value) for value in (self.temperature, self.top_p, self.min_p))
        return Knobs(*values, top_k=self.top_k)


@flax.struct.dataclass
class Knobs:
    """SamplingConfig on the device: all traced, so that turning one compiles nothing, but for top_k."""

    temperature: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    top_k: int = flax.struct.field(pytree_node=False, default=0)


def sample(keys: jax.Array, logits: jax.Array, allowed: jax.Array, knobs: Knobs) -> jax.Array:
    """One id [B] for each row of logits [B, V], with its own key [B], among those `allowed` [B, V]."""
    logits = jnp.where(allowed, logits, NEVER)
    warm = jnp.maximum(knobs.temperature, 1e-6)
    drawn = jax.vmap(jax.random.categorical)(keys, restrict(logits / warm, knobs))
    return jnp.where(knobs.temperature > 0, drawn, logits.argmax(axis=-1)).astype(jnp.int32)


def restrict(logits: jax.Array, knobs: Knobs) -> jax.Array:
    """logits [B, V] with NEVER where top-k, then min-p and top-p of what top-k left, rule an id out."""
    if 0 < knobs.top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, knobs.top_k)[0][:, -1:]
        logits = jnp.where(logits >= least, logits, NEVER)
    floor = logits.max(axis=-1, keepdims=True) + jnp.log(jnp.maximum(knobs.min_p, 1e-30))
    nucleus = jax.lax.cond(knobs.top_p < 1, _nucleus, lambda logits, top_p: logits, logits, knobs.top_p)
    return jnp.where(logits >= floor, nucleus, NEVER)


def _nucleus(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """By the largest probability p such that all ids of at least p together reach top_p: halving finds it in a quarter of the
    time of a sort, to within 2^-HALVINGS of the likeliest id's probability. Equally likely ids stay or go together.
    """
    probability = jax.nn.softmax(logits, axis=-1)

    def halve(_, bounds):
        enough, too_few = bounds
        middle = (enough + too_few) / 2
        reaches = jnp.where(probability >= middle, probability, 0).sum(axis=-1, keepdims=True) >= top_p
        return jnp.where(reaches, middle, enough), jnp.where(reaches, too_few, middle)

    peak = probability.max(axis=-1, keepdims=True)
    least, _ = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(peak), 2 * peak))
    return jnp.where(probability >= jnp.minimum(least, peak), logits, NEVER)  # the likeliest one always stays
