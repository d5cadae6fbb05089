"""Instrument ids with tracks and roles: the parts of their embeddings, what is predicted, and a plain model's weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sage_jax.models.config import ModelConfig
from sage_jax.models.instruments import NO_LOGIT, base_ids, num_predicted, predicted_sizes
from sage_jax.models.registry import abstract_params, build_model
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents
from sage_jax.training.initial_weights import with_roles
from tests.models.small import parameters, small_config, tiny_config

FORMS = [dict(architecture="flat"), dict(architecture="nested", lookahead=2), dict(architecture="compound")]


def config_of(tokenizer: NoteEvents, **form) -> ModelConfig:
    fields = dict(tracks_per_program=tokenizer.tracks_per_program, roles=isinstance(tokenizer, RoleEvents))
    return tiny_config(vocab_sizes=tokenizer.vocab_sizes, kv_sharing="mqa", **fields, **form)


@pytest.mark.parametrize("tracks", [1, 3])
def test_the_parts_of_an_id_are_its_program_its_track_and_its_role(tracks):
    roles = RoleEvents.of(NoteEvents(tracks_per_program=tracks))
    config = config_of(roles)
    base, track, role = base_ids(config)
    plain = NoteEvents()
    assert num_predicted(config) == roles.num_instruments and len(base) == roles.vocab_sizes[ev.INSTRUMENT]
    for program in (0, 40, 128):
        for number in range(tracks):
            own = roles.instrument_of(program, number)
            given = own + roles.to_given
            assert base[own] == base[given] == plain.instrument_of(program, 0)
            assert track[own] == track[given] == number and (role[own], role[given]) == (0, 1)
    for kind in (ev.REST, ev.METER_CHANGE, ev.TEMPO_CHANGE):
        assert base[kind] == base[kind + roles.to_given] == kind
    assert base[roles.lead_event] == plain.vocab_sizes[ev.INSTRUMENT] and role[roles.lead_event] == 0
    assert predicted_sizes(config)[ev.INSTRUMENT] == roles.num_instruments


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["architecture"])
def test_given_ids_are_read_and_never_predicted(form):
    roles = RoleEvents.of(NoteEvents(tracks_per_program=2))
    config = config_of(roles, **form)
    params = parameters(config)
    own = roles.encode(roles.quantize(NoteEvents().decode(np.array([[4, 40, 64, 9, 9], [9, 41, 66, 9, 9]]))))[None]
    given = own.copy()
    given[0, 3, ev.INSTRUMENT] += roles.to_given
    apply = jax.jit(lambda events: build_model(config).apply({"params": params}, events))
    logits, others = apply(own), apply(given)
    assert logits[ev.INSTRUMENT].shape[-1] == roles.vocab_sizes[ev.INSTRUMENT]
    assert (np.asarray(logits[ev.INSTRUMENT])[:, 1:, roles.num_instruments :] == NO_LOGIT).all()
    assert np.array_equal(logits[ev.ONSET][:, :2], others[ev.ONSET][:, :2])  # before the event
    assert not np.allclose(logits[ev.ONSET][:, 3:], others[ev.ONSET][:, 3:])  # its role is seen


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["architecture"])
@pytest.mark.parametrize("tracks", [1, 2])
def test_a_plain_models_weights_with_roles_give_the_same_logits(form, tracks):
    plain = NoteEvents()
    roles = RoleEvents.of(NoteEvents(tracks_per_program=tracks))
    before, after = config_of(plain, **form), config_of(roles, **form)
    params = parameters(before)
    grown = with_roles(params, after)
    shapes = jax.tree.map(lambda leaf: leaf.shape, abstract_params(after))
    assert jax.tree.map(jnp.shape, grown) == shapes
    piece = plain.quantize(plain.decode(np.array([[4, 40, 64, 9, 9], [9, 41, 66, 9, 9], [30, 135, 150, 9, 9]])))
    old = jax.jit(build_model(before).apply)({"params": params}, plain.encode(piece)[None])
    new = jax.jit(build_model(after).apply)({"params": grown}, roles.encode(piece)[None])
    for attribute, (was, now) in enumerate(zip(*map(jax.device_get, (old, new)), strict=True)):
        columns = np.arange(min(was.shape[-1], now.shape[-1]))
        if attribute == ev.INSTRUMENT:
            was = was[..., base_ids(after)[0][: roles.num_instruments]]
            columns = np.arange(roles.num_instruments)
        np.testing.assert_allclose(now[..., columns], was[..., columns], rtol=1e-5, atol=1e-5)


def test_other_models_have_the_parameters_that_they_had():
    config = small_config()
    assert set(abstract_params(config)) == set(abstract_params(dataclasses.replace(config, roles=False)))
    assert not [name for name in abstract_params(config) if "given" in name or "track" in name]
