"""test_hosts.py at length: a run of two hosts, of which one after the other is killed, beside one that nothing happens to.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/mine --config.data.corpus=folder:MIDI
  python -m tests.training.killed_twice --shards=runs/mine/data --workdir=runs/killed_twice

Both runs are of the demo's model, in four processes at once: with 600 steps that is 25 minutes of two cores. It ends well, and
says how many losses it has compared, where all of them are the same to the last bit.
"""

import pathlib
import signal

from absl import app, flags

from tests.training.launched import has_reached, losses, start_hosts, wait_for

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
    workdir, shards = pathlib.Path(_WORKDIR.value), pathlib.Path(_SHARDS.value)
    if workdir.exists():
        raise SystemExit(f"{workdir} is there already; choose another --workdir")
    # In steps. A host dies between two checkpoints, so that what came after the earlier one is done again.
    every = dict(log_every=_STEPS.value // 60, checkpoint_every=_STEPS.value // 12, eval_every=_STEPS.value // 3)
    steps = [f"--config.train.{field}={value}" for field, value in dict(steps=_STEPS.value, **every).items()]
    whole = start_hosts(2, workdir / "whole", shards, *steps, of=DEMO)
    for part, victim in KILLS:
        hosts = start_hosts(2, workdir / "killed", shards, *steps, of=DEMO)
        wait_for(hosts[0], has_reached(workdir / "killed", int(part * _STEPS.value)))
        if hosts[0].poll() is not None:
            raise SystemExit(hosts[0].communicate()[1] or "the run had ended before a host was killed; give it more --steps")
        for host in (victim, 1 - victim):  # and the scheduler ends the other, which waits for it
            hosts[host].send_signal(signal.SIGKILL)
            hosts[host].communicate()
        print(f"killed host {victim} at step {max(step for _, step in losses(workdir / 'killed'))}", flush=True)
    for process in [*start_hosts(2, workdir / "killed", shards, *steps, of=DEMO), *whole]:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(said)
    expected, found = losses(workdir / "whole"), losses(workdir / "killed")
    others = [place for place, loss in expected.items() if found.get(place) != loss]
    print(f"{len(expected)} losses to step {_STEPS.value}, of which {len(others)} differ")
    if others:
        raise SystemExit(f"the first that differs is of {others[0]}")


if __name__ == "__main__":
    app.run(main)
