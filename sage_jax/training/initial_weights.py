"""Fine-tuning: a new run begins with the weights of another model (config.train.init_from)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sage_jax.config import RunConfig
from sage_jax.errors import UserError
from sage_jax.models.config import DROPOUTS, ModelConfig
from sage_jax.models.instruments import INSTRUMENT, base_ids
from sage_jax.models.registry import abstract_params
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents
from sage_jax.training.state import TrainState
from sage_jax.weights.saved_model import SavedModel

# Fields that change how a model is computed or trained, but not what its parameters mean.
DERIVED = frozenset({"vocab_sizes", "tracks_per_program", "roles"})  # from the tokenizer
ROLES_ADD = frozenset({"name", "max_bar_step", "tracks_per_program"})  # what a model with roles may have anew
FREE = frozenset({"dtype", "decode_impl", "query_chunk_size", "attention_impl", "remat", *DROPOUTS})


def load_initial(run: RunConfig, representation: Tokenizer) -> Any:
    """The parameters that config.train.init_from names, of its newest checkpoint if it is a run.

    A run with events in roles can begin with the weights of one without, whose ids have the same meanings there.
    Raises UserError, naming the first field that differs, if they are of another architecture or tokenizer than `run`.
    """
    source = run.train.init_from
    saved = SavedModel.open(source)
    gets_roles = isinstance(representation, RoleEvents) and type(saved.tokenizer) is NoteEvents
    free = FREE | DERIVED | (ROLES_ADD if gets_roles else set())
    for section, here, there in (
        ("tokenizer", run.tokenizer, saved.run.tokenizer),
        ("representation", run.representation, saved.run.representation),
        ("model", run.model, saved.run.model),
    ):
        for field in (field.name for field in dataclasses.fields(here)):
            if field not in free and getattr(here, field) != getattr(there, field):
                raise UserError(
                    f"config.train.init_from is {source}, whose {section}.{field} is {getattr(there, field)!r} and not "
                    f"{getattr(here, field)!r}; set --config.{section}.{field}={getattr(there, field)}, or choose other weights"
                )
    if gets_roles:
        return with_roles(saved.params, run.model)
    if saved.tokenizer.fingerprint != representation.fingerprint:
        raise UserError(f"config.train.init_from is {source}, whose vocabulary is another one; choose other weights")
    return saved.params


def with_roles(params: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The parameters of a model over NoteEvents as those of `config`, one over RoleEvents of the same sizes.

    Ids that both have keep their rows. A given event begins as the same own one, a program's further tracks as its first, and
    the LEAD event and its values as zeros.
    """
    wanted, made = abstract_params(config), dict(params)
    for name, leaf in wanted.items():
        if isinstance(leaf, Mapping) or (name in params and np.shape(params[name]) == leaf.shape):
            continue
        old = np.asarray(params[name]) if name in params else np.zeros((0, *leaf.shape[1:]), np.float32)
        new = np.zeros(leaf.shape, np.float32)
        if name == f"head_{INSTRUMENT}":
            old = old.take(base_ids(config)[0][: leaf.shape[1]], axis=1)
        kept = tuple(slice(min(sizes)) for sizes in zip(old.shape, new.shape, strict=True))
        new[kept] = old[kept]
        made[name] = new
    return made


def begin_with(state: TrainState, params: Any) -> TrainState:
    """`state` before the first step with other parameters, in the shardings of its own."""

    def place(new: Any, old: jax.Array) -> jax.Array:
        values = np.asarray(new, old.dtype)
        return jax.make_array_from_callback(values.shape, old.sharding, lambda index: values[index])

    started = jax.tree.map(place, params, state.params)
    return state.replace(params=started, ema=None if state.ema is None else jax.tree.map(place, params, state.ema))
