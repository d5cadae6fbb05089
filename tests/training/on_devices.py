"""Runs of five steps on eight fake devices, each under another partitioner: for a process of its own.

  python -m tests.training.on_devices FOLDER

Writes FOLDER/NAME.npz for each of LAYOUTS: metrics, gradient moments, parameters, validation sums, collectives and bytes of
the state on a device. Also writes FOLDER/initial.npz, the parameters that a model draws on all axes; FOLDER/resumed.npz, a run
that resumes a checkpoint under another partitioner; and FOLDER/fsdp.npz, the bytes of a state that all devices shard. The
number of fake devices is fixed before jax starts, so the test's own process can't be used.
"""

import functools
import os
import pathlib
import sys

NUM_DEVICES = 8
LAYOUTS = {
    "data_tensor": {"mesh": dict(data=4, tensor=2), "train": dict(grad_accum_steps=4)},
    "all_axes": {"mesh": dict(data=2, fsdp=2, tensor=2)},
    "pmap": {"partitioner": "pmap"},
}
RESUMED = ("all_axes", "pmap")  # saved under, resumed under
RESUMED_AT = 3  # steps
MODEL = dict(num_heads=40, head_dim=2, embed_dim=16, num_layers=1, mlp_dim=16)


def make_run(layout: dict):
    """The RunConfig of a layout, on as many devices as there are for an empty one."""
    from sage_jax.config import RunConfig
    from tests.training.tiny import tiny_config

    train = dict(batch_size=16, steps=5, **layout.get("train", {}))
    return RunConfig.from_dict(tiny_config(**layout | dict(train=train, model=MODEL)).to_dict())


def batches():
    """Five batches of rows of different lengths; the last rows are all padding, as in the last batch of a split."""
    from tests.training.tiny import random_events

    for seed in range(5):
        events = random_events(16, seed)
        events[13 - seed :] = 0
        yield {"events": events}


def flat(tree):
    import jax
    import numpy as np

    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def quick_start():
    """Patches models to begin with tests/initial_values.py: a real initializer compiles for as long as a train step."""
    from unittest import mock

    from sage_jax.models.backbone import Backbone
    from tests.initial_values import drawn_init

    return mock.patch.object(Backbone, "init", drawn_init)


@functools.cache
def compiled(name: str):
    """(RunConfig, TrainFunctions, initial state on the host, compiled train step) of a layout, or of one device where LAYOUTS
    has no such name."""
    from sage_jax.training.train_functions import empty_batch, make_train_functions

    run = make_run(LAYOUTS.get(name, {}))
    with quick_start():
        functions = make_train_functions(run, run.tokenizer)
        state = functions.init(0)
    train_step = functions.train_step.lower(state, functions.shard_batch(empty_batch(run))).compile()
    return run, functions, functions.unshard_state(state), train_step


def run_steps(name: str, folder: pathlib.Path | None = None) -> dict:
    """The results of a run. folder: for a checkpoint of step RESUMED_AT."""
    import jax
    import numpy as np

    from sage_jax.benchmark.communication import communicated
    from sage_jax.training.checkpoint import Checkpoints
    from sage_jax.training.sharding import bytes_of_state

    run, functions, initial, train_step = compiled(name)
    state = functions.shard_state(initial)
    lines, moments = [], None
    for step, batch in enumerate(batches(), 1):
        state, metrics = train_step(state, functions.shard_batch(batch))
        lines.append({key: np.asarray(value) for key, value in metrics.items()})
        if moments is None:  # copied, because the next step reuses the state's memory
            moments = jax.tree.map(np.array, jax.device_get(functions.unshard_state(state).opt_state[1][0].mu))
        if folder and step == RESUMED_AT:
            with Checkpoints(folder, run) as checkpoints:
                checkpoints.save(functions.unshard_state(state), {})
    sums = functions.eval_step(state.params, functions.shard_batch(batch))
    whole = functions.unshard_state(state)
    round_trip = functions.unshard_state(functions.shard_state(whole))
    np.testing.assert_array_equal(flat(whole.params), flat(round_trip.params))
    return {
        **{key: np.stack([line[key] for line in lines]) for key in lines[0]},
        "gradients": flat(moments),
        "params": flat(whole.params),
        "score": np.append(np.asarray(sums.nll), sums.notes),
        "collectives": communicated(train_step),
        "state_bytes": bytes_of_state(whole),
        "remarks": functions.remarks,
    }


def initial_parameters(name: str) -> dict:
    """What a model's own initializers draw."""
    from sage_jax.training.train_functions import make_train_functions

    run = make_run(LAYOUTS.get(name, {}))
    functions = make_train_functions(run, run.tokenizer)
    return {"params": flat(functions.unshard_state(functions.init(0)).params)}


def sharded_state_bytes() -> int:
    """Bytes of a state on each device if all eight shard it; nothing is compiled."""
    from sage_jax.training.sharding import bytes_of_state
    from sage_jax.training.train_functions import make_train_functions

    run = make_run({"mesh": dict(fsdp=NUM_DEVICES)})
    return bytes_of_state(make_train_functions(run, run.tokenizer).abstract_state)


def resume(name: str, folder: pathlib.Path) -> dict:
    """The losses of a run after it resumed the checkpoint in `folder`."""
    import itertools

    import numpy as np

    from sage_jax.training.checkpoint import Checkpoints

    run, functions, initial, train_step = compiled(name)
    with Checkpoints(folder, run) as checkpoints:
        restored, _ = checkpoints.restore(initial)
    state, losses = functions.shard_state(restored), []
    for batch in itertools.islice(batches(), int(restored.step), None):
        state, metrics = train_step(state, functions.shard_batch(batch))
        losses.append(np.asarray(metrics["loss"]))
    return {"loss": np.stack(losses)}


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={NUM_DEVICES}"
    import numpy as np

    saved, resumed = RESUMED
    for name in LAYOUTS:
        np.savez(folder / f"{name}.npz", **run_steps(name, folder / "run" if name == saved else None))
    np.savez(folder / "resumed.npz", **resume(resumed, folder / "run"))
    np.savez(folder / "initial.npz", **initial_parameters("all_axes"))
    np.savez(folder / "fsdp.npz", state_bytes=sharded_state_bytes())


if __name__ == "__main__":
    main()
