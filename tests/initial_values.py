"""Initial parameters that compile in no time, for tests that train or decode with whatever a model begins with.

The real initializers cost three seconds of compilation for each config: every parameter is a random draw of its own. They are
tested in tests/training/test_step.py and test_sharding.py, and by every program that a test starts.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.backbone import Backbone

_real_init = Backbone.init


@functools.cache
def _shapes(model: Backbone) -> Any:
    events = jax.ShapeDtypeStruct((1, 2, model.config.num_attributes), jnp.int32)
    return jax.eval_shape(functools.partial(_real_init, model), jax.random.key(0), events)


def quick_init(model: Backbone, key: jax.Array, events: jax.Array) -> Any:
    """As Backbone.init: sines of growing numbers, of another phase for each key. Scales of norms are 1."""
    del events
    leaves, structure = jax.tree.flatten(_shapes(model))
    ends = [0]
    for leaf in leaves:
        ends.append(ends[-1] + math.prod(leaf.shape))
    phase = (jax.random.key_data(key)[-1] % 1000).astype(jnp.float32)
    values = jnp.sin(jnp.arange(ends[-1], dtype=jnp.float32) * 78.233 + phase) / 4
    parts = [values[low:high].reshape(leaf.shape) for leaf, low, high in zip(leaves, ends, ends[1:], strict=False)]
    return jax.tree.unflatten(structure, [part if part.ndim > 1 else jnp.ones_like(part) for part in parts])


def drawn_init(model: Backbone, key: jax.Array, events: jax.Array) -> Any:
    """As quick_init, with the same numbers for every key and on all devices. Such sines depend on how XLA fuses them."""
    del key, events
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(size=leaf.shape) / 4 if leaf.ndim > 1 else np.ones(leaf.shape)
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf).astype(leaf.dtype)), _shapes(model))
