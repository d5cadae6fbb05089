"""Runs of five steps on eight fake devices, each spread in another way: for a process of its own.

  python -m tests.training.on_devices FOLDER

Writes FOLDER/NAME.npz for each of RUNS: losses, counted notes, the gradients' first moments, the params, a score, and what a
device sends and holds. Devices are counted before jax starts, so that this can't be a test's own process.
"""

import os
import pathlib
import sys

NUM_DEVICES = 8
# By name, how a run is spread; "one" is the only one with a single device.
RUNS = {
    "one": {},
    "data": {"mesh": dict(data=8)},
    "fsdp": {"mesh": dict(fsdp=8)},
    "all_axes": {"mesh": dict(data=2, fsdp=2, tensor=2)},
    "pmap": {"parallel": "pmap"},
    "micro_batches": {"mesh": dict(data=4, tensor=2)},
}
MODEL = dict(heads=40, head_width=2, width=16, layers=1, mlp_width=16)


def batches():
    """Five batches of rows of different lengths; the last rows are padding alone, as in the last batch of a split."""
    from tests.training.tiny import random_events

    for seed in range(5):
        events = random_events(16, seed)
        events[13 - seed :] = 0
        yield {"events": events}


def run_steps(name: str) -> dict:
    import jax
    import numpy as np

    from sage_jax.benchmark.communication import communicated
    from sage_jax.training.config import RunConfig
    from sage_jax.training.programs import empty_batch, make_programs
    from sage_jax.training.sharding import bytes_of_state
    from tests.training.tiny import tiny_config

    train = dict(batch_size=16, steps=5, accumulate=4 if name == "micro_batches" else 1)
    run = RunConfig.from_dict(tiny_config(train=train, model=MODEL, **RUNS[name]).to_dict())
    programs = make_programs(run, run.tokenizer)
    state = programs.init(0)
    update = programs.update.lower(state, programs.place(empty_batch(run))).compile()
    lines, moments = [], None
    for batch in batches():
        state, metrics = update(state, programs.place(batch))
        lines.append({key: np.asarray(value) for key, value in metrics.items()})
        if moments is None:  # copied, because the next step takes the state's memory
            moments = jax.tree.map(np.array, jax.device_get(programs.whole(state).opt_state[1][0].mu))
    totals = programs.score(state.params, programs.place(batch))
    whole = programs.whole(state)
    again = programs.whole(programs.spread(whole))
    flat = lambda tree: np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])
    np.testing.assert_array_equal(flat(whole.params), flat(again.params))
    return {
        **{key: np.stack([line[key] for line in lines]) for key in lines[0]},
        "gradients": flat(moments),
        "params": flat(whole.params),
        "score": np.append(np.asarray(totals.nll), totals.notes),
        "sent": communicated(update),
        "held": bytes_of_state(whole),
        "remarks": programs.remarks,
    }


def main() -> None:
    folder, *names = sys.argv[1:]
    if names != ["one"]:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={NUM_DEVICES}"
    import numpy as np

    for name in names:
        np.savez(pathlib.Path(folder) / f"{name}.npz", **run_steps(name))


if __name__ == "__main__":
    main()
