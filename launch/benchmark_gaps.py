"""Measures how long a live player waits for the next event while windows move and other players join.

  python -m launch.benchmark_gaps                             four players, as in launch.live; three minutes on two cores
  python -m launch.benchmark_gaps --model=runs/my_weights --sessions=8

A step is the median time between two events while nothing is read. docs/live.md says what the columns mean.
"""

from absl import flags

from launch._main import run
from sage_jax.api import load
from sage_jax.benchmark.gaps import measure
from sage_jax.environment import describe
from sage_jax.live.host import LiveHost

MODEL = flags.DEFINE_string("model", "sage-20m", "Weights: a name, or a folder of launch.export.")
SESSIONS = flags.DEFINE_integer("sessions", 4, "Rows of the engine.", lower_bound=2)
EVENTS = flags.DEFINE_integer("events", 2000, "Events that the player draws in a turn.", lower_bound=100)
TURNS = flags.DEFINE_integer("turns", 3, "Turns of each system.", lower_bound=1)


def main() -> None:
    model = load(MODEL.value)
    host = LiveHost(model, SESSIONS.value)
    table = measure(host.engine, host.scheduler.window_length, model.sampling, EVENTS.value, TURNS.value, print)
    print("", ", ".join(f"{name} {value}" for name, value in describe().items()), "", table, sep="\n")


if __name__ == "__main__":
    run(main)
