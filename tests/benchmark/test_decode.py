"""A measurement of decoding draws what it counts, whatever the representation and the form of the model."""

import jax
import numpy as np
import pytest

from configs import study as configs
from sage_jax.benchmark.decode import Decoder, prompts
from sage_jax.benchmark.worker import DecodingRun
from sage_jax.errors import UserError
from sage_jax.evaluation.results import plain
from sage_jax.music.corpus import list_corpus
from sage_jax.music.events import BOS, NoteEvents
from sage_jax.music.midi import read_midi
from sage_jax.music.mmt import BEAT, Mmt
from sage_jax.study.config import Row, StudyConfig
from sage_jax.training.config import RunConfig

EVENTS, CONTEXT = 40, 70  # in events; the rows of MMT came to their end after some twenty
# Whose merges do not take long to learn; how many there are changes neither form nor grammar.
SYSTEMS = dict.fromkeys([*configs.FORMS, "bpe500", "as_kvhs-mixed-4", "nested2-as_kvhs-own-4"])


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    tables = dict(all=dict(systems=tuple(SYSTEMS), train_on=("multitrack",), seeds=1))
    return StudyConfig.from_dict({**configs.get_config("debug").to_dict(), "tables": tables, "seek_with": configs.FAMILIES})


def job_of(study: StudyConfig, system: str, folder) -> dict:
    sections = study.sections(Row(system, "multitrack"))
    sections["model"]["layers"] = 1
    run = RunConfig.from_dict(sections)
    pieces = (run.tokenizer.quantize(read_midi(path, 12)) for _, path in list_corpus("embedded")[:4])
    run.representation.learn(run.tokenizer, pieces, folder)
    sizes = {name: run.representation.steps(count) for name, count in (("context_events", CONTEXT), ("events", EVENTS))}
    job = dict(batch=1, seed=0, dtype="float32", prefill=True, merges_in=str(folder))
    return {**job, **sizes, "sections": plain(sections)}


def test_the_systems_are_of_all_forms_and_representations():
    study = StudyConfig.from_dict(configs.get_config("full").to_dict())
    assert {study.family(row.system) for row in study.rows()} == {study.family(system) for system in SYSTEMS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_of_the_study_draws_as_many_events_as_it_counts(system, study, tmp_path):
    job = job_of(study, system, tmp_path)
    decoder = Decoder(job)
    whole = decoder.drawn()  # of the loop
    decoder._rewind()
    for event in range(1, job["events"] + 1):
        decoder._advance(event)
    one_by_one = decoder.drawn()
    np.testing.assert_array_equal(one_by_one, whole)  # so that nothing is left of what was drawn before
    run = DecodingRun(**decoder.run())
    assert run.events_drawn == len(run.seconds) == job["events"] and 0 < run.notes_drawn <= job["events"]
    assert run.notes_drawn == decoder._tokenizer.num_notes(whole).sum()


def test_a_row_that_came_to_its_end_is_no_measurement(study, tmp_path, monkeypatch):
    monkeypatch.setattr("sage_jax.benchmark.decode.HeldBeats", lambda grammar, _: grammar)
    with pytest.raises(RuntimeError, match=r"a row drew \d+ events, or came to its end, where 50 were wanted"):
        Decoder(job_of(study, "mmt", tmp_path))


def test_noise_in_place_of_a_prompt_is_rewound_too():
    model = dict(width=32, layers=1, heads=10, head_width=4, mlp_width=48, form="delay", sharing="mqa")
    job = dict(batch=2, context_events=24, events=4, seed=0, dtype="float32", prefill=False, model=model)
    decoder = Decoder(job)
    whole = decoder.drawn()
    run = DecodingRun(**decoder.run())
    assert run.events_drawn == 4 and run.prefill_seconds is None
    np.testing.assert_array_equal(decoder.drawn(), whole)
    assert jax.device_get(decoder._state.cache.length) == 24


def test_events_are_timed_as_they_are_counted():
    with pytest.raises(ValueError, match="2 events were timed, and 3 drawn"):
        DecodingRun([0.1, 0.1], events_drawn=3, notes_drawn=3, prefill_seconds=None, peak_megabytes=1.0)


def test_prompts_begin_once_and_never_go_back(monkeypatch):
    rows, seconds = prompts(NoteEvents(), 2, 300)
    assert seconds > 0 and all(((row == BOS).all(axis=1)).sum() == 1 for row in rows)
    tokenizer = Mmt()
    rows, _ = prompts(tokenizer, 2, 300)
    for row in rows:
        tokenizer.decode(row)  # raises where the rows are not in order
        assert row[:, BEAT].max() <= 3 * tokenizer.max_beats // 4
    monkeypatch.setattr("sage_jax.benchmark.decode.list_corpus", lambda source: list_corpus(source)[:1])
    with pytest.raises(UserError, match="no piece of the embedded corpus has 1000000 events"):
        prompts(NoteEvents(), 1, 1_000_000)
