"""Batches of tasks: floors beside events, exact resume, packing, and the same validation each time."""

import itertools

import numpy as np
import pytest

from sage_jax.config import RunConfig
from sage_jax.data.pipeline import make_dataset
from sage_jax.defaults import default_config
from sage_jax.errors import UserError
from sage_jax.tasks.config import TasksConfig
from sage_jax.tokenizers.note_events import BOS, PAD, NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents

TOKENIZER = NoteEvents()
ROLES = RoleEvents.of(TOKENIZER)
CONTEXT = 64


def dataset(shards, split="train", **settings):
    settings = dict(context_events=CONTEXT, batch_size=4, seed=0, representation=ROLES, num_steps=CONTEXT) | settings
    return make_dataset(shards, split, TOKENIZER, tasks=TasksConfig(), **settings)


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("events", "floors"))


@pytest.mark.parametrize("pack", [False, True])
def test_batches_have_floors_and_resume_exactly(shards, pack):
    iterator = iter(dataset(shards, pack=pack))
    first = [next(iterator) for _ in range(3)]
    state = iterator.get_state()
    later = [next(iterator) for _ in range(3)]
    iterator.set_state(state)
    assert all(same(one, other) for one, other in zip(later, itertools.islice(iterator, 3), strict=True))
    for batch in first + later:
        assert batch["events"].shape == (4, CONTEXT + 1, 5) and batch["floors"].shape == (4, CONTEXT + 1)
        assert batch["floors"].dtype == batch["events"].dtype == np.int32
        head = batch["events"][..., 0] == BOS
        assert (batch["floors"][head] == -1).all() and (batch["floors"] < ROLES.vocab_sizes[0]).all()
        assert (batch["floors"][batch["events"][..., 0] == PAD] == 0).all()
    assert any(ROLES.is_given(batch["events"]).any() for batch in first)


def test_validation_is_the_same_each_time(shards):
    batches = [list(dataset(shards, "valid", shuffle=False)) for _ in range(2)]
    assert all(same(one, other) for one, other in zip(*batches, strict=True)) and batches[0]
    assert any(ROLES.is_given(batch["events"]).any() for batch in batches[0])


def test_shares_that_cannot_be():
    with pytest.raises(UserError, match="the shares of tasks add up to 1.5"):
        TasksConfig(plain=0.7)
    with pytest.raises(UserError, match="tasks.live is -0.1"):
        TasksConfig(live=-0.1)
    config = default_config("debug")
    config["tasks"] = dict(plain=1.0, accompany=0.0, infill=0.0, scattered=0.0, live=0.0)
    with pytest.raises(UserError, match="no given events; set config.representation.name to roles"):
        RunConfig.from_dict(config)
