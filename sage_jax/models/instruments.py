"""Embeddings of instrument ids as sums of parts: what plays, which of its tracks, and whether it is given.

So a second violin is a violin from its first note on, and a given note is the note that it is as an own one.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sage_jax.models.config import ModelConfig
from sage_jax.tokenizers.note_events import FIRST, FIRST_PROGRAM, INSTRUMENT

NO_LOGIT = -1e9  # of an id that is never predicted; finite, so that masked sums stay finite


def base_ids(config: ModelConfig) -> np.ndarray:
    """(base, track, role) of each instrument id, int [3, V].

    base: the id with one track a program and without roles; the LEAD event has one of its own. track: from 0.
    role: 1 for given.
    """
    size, tracks = config.vocab_sizes[INSTRUMENT], config.tracks_per_program
    own_size = num_predicted(config)
    ids = np.arange(size)
    role = (ids >= own_size).astype(int)
    own = np.where(role, ids - (own_size - FIRST), ids)
    base = np.where(own < FIRST_PROGRAM, own, FIRST_PROGRAM + (own - FIRST_PROGRAM) // tracks)
    track = np.where(own < FIRST_PROGRAM, 0, (own - FIRST_PROGRAM) % tracks)
    if config.roles:  # the last id is the LEAD event
        base[-1], track[-1], role[-1] = base[own_size - 1] + 1, 0, 0
    return np.stack([base, track, role])


def num_predicted(config: ModelConfig) -> int:
    """The number of instrument ids that a model predicts: all but given ones and the LEAD event, the last ones."""
    size = config.vocab_sizes[INSTRUMENT]
    return (size - 1 + FIRST) // 2 if config.roles else size


def predicted_sizes(config: ModelConfig) -> tuple[int, ...]:
    """The number of ids of each attribute that a model predicts."""
    sizes = list(config.vocab_sizes)
    if config.roles:
        sizes[INSTRUMENT] = num_predicted(config)
    return tuple(sizes)


def is_plain(config: ModelConfig) -> bool:
    """Whether instrument ids have no parts."""
    return config.tracks_per_program == 1 and not config.roles


class PartsTable(NamedTuple):
    """A table [V, D] that is a sum of parts. parts: (int [V], the row of each id in the part's table; the table [n, D])."""

    parts: tuple[tuple[np.ndarray, jax.Array], ...]


def instrument_table(config: ModelConfig, param: Callable[[str, tuple[int, int]], jax.Array], dim: int) -> PartsTable:
    """The embeddings of instrument ids that have parts. param(suffix, shape) gives a table; the suffix ends its name."""
    base, track, role = base_ids(config)
    parts = [(base, param("", (int(base.max()) + 1, dim)))]
    # The first track of a program is the program, and an own event is the event: these have no row, which is zero.
    if config.tracks_per_program > 1:
        parts.append((track, param("_track", (config.tracks_per_program - 1, dim))))
    if config.roles:
        parts.append((role, param("_given", (1, dim))))
    return PartsTable(tuple((rows, table if rows is base else jnp.pad(table, ((1, 0), (0, 0)))) for rows, table in parts))


def full_table(config: ModelConfig, params: Mapping[str, Any], name: str, attribute: int) -> jax.Array:
    """The embeddings [V, D] of an attribute whose parameters have names that begin with `name`."""
    if attribute != INSTRUMENT or is_plain(config):
        return params[name]
    table = instrument_table(config, lambda part, _: params[name + part], config.embed_dim)
    return look_up(table, jnp.arange(config.vocab_sizes[INSTRUMENT]))


def look_up(table: jax.Array | PartsTable, ids: jax.Array) -> jax.Array:
    """The embeddings [..., D] of ids [...]."""
    if not isinstance(table, PartsTable):
        return jnp.take(table, ids, axis=0)
    found = (jnp.take(part, jnp.take(jnp.asarray(rows, jnp.int32), ids), axis=0) for rows, part in table.parts)
    return functools.reduce(jnp.add, found)


def pad_logits(config: ModelConfig, logits: jax.Array) -> jax.Array:
    """Logits [..., num_predicted] of instrument ids as logits [..., V] of all of them."""
    missing = config.vocab_sizes[INSTRUMENT] - logits.shape[-1]
    if not missing:
        return logits
    return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, missing)], constant_values=NO_LOGIT)
