"""test_hosts.py at length: a run of two hosts, of which one after the other is killed, beside one that nothing happens to.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/mine --config.data.corpus=folder:MIDI
  python -m tests.training.killed_twice --shards=runs/mine/data --workdir=runs/killed_twice

Both runs are of the demo's model, in four processes at once: with 600 steps that is 25 minutes of two cores. It ends well, and
says how many losses it has compared, where all of them are the same to the last bit.
"""

import pathlib

from absl import app, flags

from tests.training.launched import end, has_reached, kill, last_step, losses, start_hosts, wait_for

DEMO = (
    "--config=configs/sage.py:demo", "--config.train.batch_size=4", "--config.train.eval_batches=8",
    "--config.train.max_minutes=0",
)  # fmt: skip
KILLS = ((0.3, 1), (0.7, 0))  # how far the run has come, and which host dies

_SHARDS = flags.DEFINE_string("shards", None, "a folder of shards, as launch.preprocess writes", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "a folder that is not there yet, for both runs", required=True)
_STEPS = flags.DEFINE_integer("steps", 600, "of each run", lower_bound=60)


def main(argv):
    del argv
    workdir, shards, steps = pathlib.Path(_WORKDIR.value), pathlib.Path(_SHARDS.value), _STEPS.value
    if workdir.exists():
        raise SystemExit(f"{workdir} is there already; choose another --workdir")
    # In steps. A host dies between two checkpoints, so that what came after the earlier one is done again.
    fields = dict(steps=steps, log_every=steps // 60, checkpoint_every=steps // 12, eval_every=steps // 3)
    begin = lambda name: start_hosts(
        2, workdir / name, shards, *(f"--config.train.{field}={value}" for field, value in fields.items()), of=DEMO
    )
    whole = begin("whole")
    for part, victim in KILLS:
        hosts = begin("killed")
        wait_for(hosts[0], has_reached(workdir / "killed", int(part * steps)))
        if hosts[0].poll() is not None:
            raise SystemExit(hosts[0].communicate()[1] or "the run had ended before a host was killed; give it more --steps")
        kill(hosts[victim], hosts[1 - victim])
        print(f"killed host {victim} at step {last_step(workdir / 'killed')}", flush=True)
    end([*begin("killed"), *whole], timeout=None)
    expected, found = losses(workdir / "whole"), losses(workdir / "killed")
    others = [place for place, loss in expected.items() if found.get(place) != loss]
    print(f"{len(expected)} losses to step {steps}, of which {len(others)} differ")
    if others:
        raise SystemExit(f"the first that differs is of {others[0]}")


if __name__ == "__main__":
    app.run(main)
