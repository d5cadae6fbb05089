"""Live play: serves a page on which a musician and the model play together, or joins MIDI ports of the system.

  python -m launch.live                                    the page, at 127.0.0.1 only
  python -m launch.live --model=runs/mine --open           your own run; the browser opens the page
  python -m launch.live --host=0.0.0.0 --sessions=4        for others in the network, at an address with a token

docs/live.md explains the modes and the settings.
"""

from absl import flags

from launch._main import run
from sage_jax.api import load
from sage_jax.live.host import LiveHost
from sage_jax.live.serve import DEFAULT_PORT, serve

MODEL = flags.DEFINE_string("model", "sage-20m", "Weights that play: a name, a folder of launch.export, or a run's folder.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve; another than 127.0.0.1 has a token in the page's address.")
PORT = flags.DEFINE_integer("port", DEFAULT_PORT, "Port to serve; 0 for a free one.")
SESSIONS = flags.DEFINE_integer("sessions", 1, "Players at once.", lower_bound=1)
OPEN = flags.DEFINE_bool("open", False, "Whether to open the page in the browser.")


def main() -> None:
    serve(
        lambda: LiveHost(load(MODEL.value), SESSIONS.value),
        sessions=SESSIONS.value,
        name=MODEL.value,
        address=HOST.value,
        port=PORT.value,
        open_browser=OPEN.value,
    )


if __name__ == "__main__":
    run(main)
