"""A run of the decoder draws the events that it counts, for every tokenizer and architecture."""

import numpy as np
import pytest

from configs import study as configs
from sage_jax.benchmark.decode import Decoder, prompts
from sage_jax.benchmark.worker import DecodingRun
from sage_jax.config import RunConfig
from sage_jax.corpus.sources import list_corpus
from sage_jax.errors import UserError
from sage_jax.evaluation.results import to_jsonable
from sage_jax.music.midi import read_midi
from sage_jax.study.config import StudyConfig, Variant
from sage_jax.tokenizers.mmt import BEAT, Mmt
from sage_jax.tokenizers.note_events import BOS, NoteEvents

EVENTS, CONTEXT = 40, 70  # in events; without CappedBeats rows of MMT end after some 20
# bpe500 is quick to learn; the number of merges changes neither architecture nor grammar.
# One of each family of the study, of which the flat and the nested one have as_kvhs.
SYSTEMS = ("as_kvhs-mixed-4", "remi", "bpe500", "pooled", "octuple", "compound", "mmt", "delay", "nested2-as_kvhs-own-4")

pytestmark = pytest.mark.usefixtures("quick_init")


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    tables = dict(all=dict(systems=SYSTEMS, train_on=("multitrack",), seeds=1))
    changes = dict(tables=tables, lr_search_systems=configs.FAMILIES)
    return StudyConfig.from_dict({**configs.get_config("debug").to_dict(), **changes})


def job_of(study: StudyConfig, system: str, folder) -> dict:
    sections = study.sections(Variant(system, "multitrack"))
    sections["model"]["num_layers"] = 1
    run = RunConfig.from_dict(sections)
    pieces = (run.tokenizer.quantize(read_midi(path, 12)) for _, path in list_corpus("embedded")[:4])
    run.representation.learn(run.tokenizer, pieces, folder)
    sizes = {name: run.representation.steps(count) for name, count in (("context_events", CONTEXT), ("events", EVENTS))}
    job = dict(batch=1, seed=0, dtype="float32", prefill=True, merges_in=str(folder))
    return {**job, **sizes, "sections": to_jsonable(sections)}


def test_the_systems_are_of_all_families():
    study = StudyConfig.from_dict(configs.get_config("full").to_dict())
    assert {study.family(variant.system) for variant in study.variants()} == {study.family(system) for system in SYSTEMS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_family_draws_as_many_events_as_it_counts(system, study, tmp_path, monkeypatch):
    job = job_of(study, system, tmp_path)
    decoder = Decoder(job)
    loop = decoder.drawn()
    decoder.restore()
    for _ in range(job["events"]):
        decoder.decode(1)
    np.testing.assert_array_equal(decoder.drawn(), loop)  # restore leaves no trace of earlier events
    run = DecodingRun(**decoder.run())
    assert run.events_drawn == len(run.seconds) == job["events"] and 0 < run.notes_drawn <= job["events"]
    assert run.notes_drawn == decoder._tokenizer.num_notes(loop).sum()

    # A row that ends early is an error.
    controls, count = decoder._controls, job["events"]
    monkeypatch.setattr(decoder, "_controls", lambda row: (made := controls(row)).replace(max_length=made.max_length - 3))
    with pytest.raises(RuntimeError, match=f"a row is done or drew {count - 3} events instead of {count}"):
        decoder.run()


def test_noise_instead_of_a_prompt_is_restored():
    model = dict(embed_dim=32, num_layers=1, num_heads=10, head_dim=4, mlp_dim=48, architecture="delay", kv_sharing="mqa")
    job = dict(batch=2, context_events=24, events=4, seed=0, dtype="float32", prefill=False, model=model)
    decoder = Decoder(job)
    loop = decoder.drawn()
    run = DecodingRun(**decoder.run())
    assert run.events_drawn == 4 and run.prefill_seconds is None
    np.testing.assert_array_equal(decoder.drawn(), loop)
    assert (decoder.engine.status()[0] == 24).all()


def test_every_drawn_event_is_timed():
    with pytest.raises(ValueError, match="2 events were timed, but 3 were drawn"):
        DecodingRun([0.1, 0.1], events_drawn=3, notes_drawn=3, prefill_seconds=None, peak_megabytes=1.0)


def test_prompts_begin_once_and_are_in_order(monkeypatch):
    rows, seconds = prompts(NoteEvents(), 2, 300)
    assert seconds > 0 and all(((row == BOS).all(axis=1)).sum() == 1 for row in rows)
    tokenizer = Mmt()
    rows, _ = prompts(tokenizer, 2, 300)
    for row in rows:
        tokenizer.decode(row)  # raises for rows out of order
        assert row[:, BEAT].max() <= 3 * tokenizer.max_beats // 4
    monkeypatch.setattr("sage_jax.benchmark.decode.list_corpus", lambda source: list_corpus(source)[:1])
    with pytest.raises(UserError, match="no piece of the embedded corpus has 1000000 events"):
        prompts(NoteEvents(), 1, 1_000_000)
