"""A long version of test_hosts.py: a run on two hosts, each of which is killed once, next to an undisturbed run.

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/mine --config.data.corpus=folder:MIDI
  python -m tests.training.killed_twice --shards=runs/mine/data --workdir=runs/killed_twice

Both runs train the demo model, in four processes at once; 600 steps take 25 minutes on two cores. The script exits with 0 and
prints the number of compared losses if all of them are bitwise equal.
"""

import pathlib

from absl import app, flags

from tests.training.processes import end, has_reached, kill, last_step, losses, start_hosts, wait_for

DEMO = (
    "--config=configs/sage.py:demo", "--config.train.batch_size=4", "--config.train.eval_batches=8",
    "--config.train.max_minutes=0",
)  # fmt: skip
KILLS = ((0.3, 1), (0.7, 0))  # (progress of the run, host to kill)

_SHARDS = flags.DEFINE_string("shards", None, "folder of token shards from launch.preprocess", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "new folder for both runs", required=True)
_STEPS = flags.DEFINE_integer("steps", 600, "steps of each run", lower_bound=60)


def main(argv):
    del argv
    workdir, shards, steps = pathlib.Path(_WORKDIR.value), pathlib.Path(_SHARDS.value), _STEPS.value
    if workdir.exists():
        raise SystemExit(f"{workdir} exists already; choose another --workdir")
    # Intervals in steps. Each kill falls between two checkpoints, so that some steps are taken again.
    fields = dict(steps=steps, log_every=steps // 60, checkpoint_every=steps // 12, eval_every=steps // 3)
    train_flags = [f"--config.train.{field}={value}" for field, value in fields.items()]
    begin = lambda name: start_hosts(2, workdir / name, shards, *train_flags, base_flags=DEMO)
    undisturbed = begin("undisturbed")
    for progress, victim in KILLS:
        hosts = begin("killed")
        wait_for(hosts[0], has_reached(workdir / "killed", int(progress * steps)))
        if hosts[0].poll() is not None:
            raise SystemExit(hosts[0].communicate()[1] or "the run ended before a host was killed; increase --steps")
        kill(hosts[victim], hosts[1 - victim])
        print(f"killed host {victim} at step {last_step(workdir / 'killed')}", flush=True)
    end([*begin("killed"), *undisturbed], timeout=None)
    expected, actual = losses(workdir / "undisturbed"), losses(workdir / "killed")
    different = [key for key, loss in expected.items() if actual.get(key) != loss]
    print(f"{len(expected)} losses up to step {steps}, {len(different)} of them different")
    if different:
        raise SystemExit(f"the first difference is at {different[0]}")


if __name__ == "__main__":
    app.run(main)
