"""Our train step as a system of the benchmark."""

import pytest

from sage_jax.benchmark.train import Trainer, configure, full_batch
from sage_jax.corpus.preprocess import preprocess
from sage_jax.tokenizers.note_events import BOS, HEAD, NoteEvents
from tests.training.tiny import write_corpus

pytestmark = pytest.mark.usefixtures("quick_init")
JOB = dict(model=dict(embed_dim=32, kv_sharing="mqa"), dtype="bfloat16", batch=2, events=16, seed=1)


def test_a_batch_is_full_of_notes():
    batch = full_batch(configure(JOB))["events"]
    assert batch.shape == (2, 17, 5) and (batch[:, 0] == BOS).all()
    assert NoteEvents().num_notes(batch)[:, HEAD:].all()


def test_a_run_has_the_model_of_its_job_on_the_requested_mesh():
    run = configure(JOB, data=1, tensor=4)
    assert (run.model.name, run.model.embed_dim, run.model.dtype) == ("mqa", 32, "bfloat16")
    assert (run.train.batch_size, run.train.seed, run.data.context_events) == (2, 1, 16)
    assert (run.mesh.data, run.mesh.fsdp, run.mesh.tensor) == (1, 1, 4)
    assert configure(JOB).mesh.data == 0  # all devices


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "midi").mkdir()
    write_corpus(folder / "midi")
    preprocess(f"folder:{folder / 'midi'}", folder / "shards", NoteEvents(), show_progress=False)
    return folder / "shards"


def test_a_run_times_steps_and_the_loader(shards):
    model = dict(embed_dim=16, num_layers=1, num_heads=2, head_dim=8, mlp_dim=16, kv_sharing="mqa")
    trainer = Trainer(dict(model=model, dtype="float32", batch=2, events=8, steps=2, seed=0, shards=str(shards)))
    metadata = trainer.metadata
    assert metadata["notes"] == 2 * (8 - HEAD)
    assert metadata["tokens"] == 2 * (5 * (8 - HEAD) + 1)  # the last event is a target only in its onset
    assert metadata["planned_bytes"] > 3 * 4 * metadata["parameters"]  # parameters and AdamW's moments
    run = trainer.run()
    assert len(run["seconds"]) == 2 and min(run["seconds"]) > 0
    assert run["read_seconds"] > 0 and run["loop_seconds"] > 0 and run["loaded_loop_seconds"] > 0
