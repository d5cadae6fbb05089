"""The batches and runs that training is measured with."""

from sage_jax.benchmark.train import configure, full_batch
from sage_jax.music.events import BOS, HEAD, NoteEvents

JOB = dict(model=dict(width=32, sharing="mqa"), dtype="bfloat16", batch=2, events=16, seed=1)


def test_a_batch_is_full_of_notes():
    batch = full_batch(configure(JOB))["events"]
    assert batch.shape == (2, 17, 5) and (batch[:, 0] == BOS).all()
    assert NoteEvents().num_notes(batch)[:, HEAD:].all()


def test_a_run_has_the_model_of_its_job_on_the_mesh_that_is_asked_for():
    run = configure(JOB, data=1, tensor=4)
    assert (run.model.name, run.model.width, run.model.dtype) == ("mqa", 32, "bfloat16")
    assert (run.train.batch_size, run.train.seed, run.data.num_events) == (2, 1, 16)
    assert (run.mesh.data, run.mesh.fsdp, run.mesh.tensor) == (1, 1, 4)
    assert configure(JOB).mesh.data == 0  # all devices
