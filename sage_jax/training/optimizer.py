"""AdamW with warm-up, cosine decay, gradient clipping, and weight decay on matrices only."""

from typing import Any

import jax
import optax

from sage_jax.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up over `warmup_steps`, then cosine decay to the final rate at `steps`."""
    warmup, peak = config.warmup_steps, config.learning_rate
    cosine = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), config.final_lr_fraction)
    if not warmup:
        return cosine
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup - 1), cosine], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The gradient transformation of a run of `steps` steps: clipping by global norm, then AdamW."""
    adamw = optax.adamw(make_schedule(config, steps), config.b1, config.b2, weight_decay=config.weight_decay, mask=decay_mask)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def decay_mask(params: Any) -> Any:
    """A tree like `params` with True where weight decay applies: matrices other than embedding tables."""

    def is_matrix(path, leaf):
        return leaf.ndim >= 2 and "embed" not in jax.tree_util.keystr(path).lower()

    return jax.tree_util.tree_map_with_path(is_matrix, params)
