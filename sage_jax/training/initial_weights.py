"""Fine-tuning: a new run begins with the weights of another model (config.train.init_from)."""

import dataclasses
from typing import Any

import jax
import numpy as np

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.config import DROPOUTS, ModelConfig
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.training.state import TrainState
from sage_jax.weights.saved_model import SavedModel

# Fields that change how a model is computed or trained, but not what its parameters mean.
FREE = frozenset({"dtype", "decode_impl", "query_chunk_size", "attention_impl", "remat", *DROPOUTS})


def load_initial(run: RunConfig, representation: Tokenizer) -> Any:
    """The parameters that config.train.init_from names, of its newest checkpoint if it is a run.

    Raises UserError, naming the first field that differs, if they are of another architecture or tokenizer than `run`.
    """
    source = run.train.init_from
    saved = SavedModel.open(source)
    for section, here, there in (
        ("tokenizer", run.tokenizer, saved.run.tokenizer),
        ("representation", run.representation, saved.run.representation),
        ("model", run.model, saved.run.model),
    ):
        for field in (field.name for field in dataclasses.fields(here)):
            is_free = isinstance(here, ModelConfig) and field in FREE | {"vocab_sizes"}
            if not is_free and getattr(here, field) != getattr(there, field):
                raise UserError(
                    f"config.train.init_from is {source}, whose {section}.{field} is {getattr(there, field)!r} and not "
                    f"{getattr(here, field)!r}; set --config.{section}.{field}={getattr(there, field)}, or choose other weights"
                )
    if saved.tokenizer.fingerprint != representation.fingerprint:
        raise UserError(f"config.train.init_from is {source}, whose vocabulary is another one; choose other weights")
    return saved.params


def begin_with(state: TrainState, params: Any) -> TrainState:
    """`state` before the first step with other parameters, in the shardings of its own."""

    def place(new: Any, old: jax.Array) -> jax.Array:
        values = np.asarray(new, old.dtype)
        return jax.make_array_from_callback(values.shape, old.sharding, lambda index: values[index])

    started = jax.tree.map(place, params, state.params)
    return state.replace(params=started, ema=None if state.ema is None else jax.tree.map(place, params, state.ema))
