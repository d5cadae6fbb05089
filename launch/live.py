"""Live play: serves a page on which a musician and the model play together, or joins MIDI ports of the system.

  python -m launch.live                                    the page, at 127.0.0.1 only
  python -m launch.live --model=runs/mine --open           your own run; the browser opens the page
  python -m launch.live --host=0.0.0.0 --sessions=4        for others in the network, at an address with a token
  python -m launch.live --list-ports
  python -m launch.live --midi-in=Keystation --midi-out=Synth --mode=accompany --qpm=90    no page

docs/live.md explains the modes and the settings.
"""

from absl import flags

from launch._main import run
from sage_jax.api import load
from sage_jax.live.host import LiveHost
from sage_jax.live.port_player import play_ports
from sage_jax.live.ports import list_ports
from sage_jax.live.serve import DEFAULT_PORT, serve
from sage_jax.live.settings import MODES, LiveSettings
from sage_jax.music.instruments import programs_of

MODEL = flags.DEFINE_string("model", "sage-20m", "Weights that play: a name, a folder of launch.export, or a run's folder.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve; another than 127.0.0.1 has a token in the page's address.")
PORT = flags.DEFINE_integer("port", DEFAULT_PORT, "Port to serve; 0 for a free one.")
SESSIONS = flags.DEFINE_integer("sessions", 1, "Players at once.", lower_bound=1)
OPEN = flags.DEFINE_bool("open", False, "Whether to open the page in the browser.")
LIST_PORTS = flags.DEFINE_bool("list-ports", False, "Print the MIDI ports of the system, and end.")
MIDI_IN = flags.DEFINE_string("midi-in", None, "Play at this MIDI port, without a page; a part of its name.")
MIDI_OUT = flags.DEFINE_string("midi-out", None, "MIDI port for the notes of the model and your own; a part of its name.")
LATENCY = flags.DEFINE_float("midi-latency", 0.0, "Milliseconds from --midi-out to the sound; notes are sent earlier by them.")
THRU = flags.DEFINE_bool("midi-thru", True, "Whether your own notes go to --midi-out too.")
MODE = flags.DEFINE_enum("mode", "answer", MODES, "With MIDI ports: when the model plays.")
QPM = flags.DEFINE_float("qpm", 120.0, "With MIDI ports: quarters a minute.")
METER = flags.DEFINE_list("meter", ["4", "4"], "With MIDI ports: the time signature, as 3,4.")
LEAD = flags.DEFINE_float("lead", 4.0, "With MIDI ports: quarters between what the model knows of you and what it writes.")
INSTRUMENTS = flags.DEFINE_list("instruments", None, "With MIDI ports: what the model may play; programs, names, or drums.")


def main() -> None:
    if LIST_PORTS.value:
        print("\n".join(list_ports()))
    elif MIDI_IN.value is None and MIDI_OUT.value is None:
        name, address, port, sessions = MODEL.value, HOST.value, PORT.value, SESSIONS.value
        make_host = lambda: LiveHost(load(name), sessions)
        serve(make_host, sessions=sessions, name=name, address=address, port=port, open_browser=OPEN.value)
    else:
        list_ports()  # raises UserError before the model is loaded
        programs = None if INSTRUMENTS.value is None else tuple(programs_of(INSTRUMENTS.value))
        meter = tuple(int(part) if part.isdecimal() else 0 for part in METER.value)
        settings = LiveSettings(
            mode=MODE.value, qpm=QPM.value, meter=meter, lead=LEAD.value, instruments=programs  # type: ignore[arg-type]
        )
        with LiveHost(load(MODEL.value)) as host:
            play_ports(host, MIDI_IN.value, MIDI_OUT.value, settings, latency=LATENCY.value, thru=THRU.value)


if __name__ == "__main__":
    run(main)
