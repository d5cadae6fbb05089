"""AdamW with warm-up, cosine decay, clipping, and weight decay on matrices only."""

import jax
import optax

from sage_jax.training.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """step -> learning rate: linear from the first step to `warmup_steps`, then a cosine to the floor at `steps`."""
    warmup, peak = config.warmup_steps, config.learning_rate
    cosine = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), config.end_fraction)
    if not warmup:
        return cosine
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup - 1), cosine], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The gradient transformation of a run of `steps` steps."""
    adamw = optax.adamw(
        make_schedule(config, steps), config.b1, config.b2, weight_decay=config.weight_decay, mask=decayed
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def decayed(params):
    """The tree of `params` with True where weight decay applies: matrices, but not embedding tables."""

    def is_matrix(path, leaf):
        return leaf.ndim >= 2 and "embed" not in jax.tree_util.keystr(path).lower()

    return jax.tree_util.tree_map_with_path(is_matrix, params)
