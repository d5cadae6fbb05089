"""Continues a MIDI file, or starts from nothing: MIDI, picture and WAV of every take.

  python -m launch.sample --config=configs/sage.py:demo --workdir=runs/demo --prompt=song.mid
  python -m launch.sample --config=configs/sage.py:demo --workdir=runs/demo --instruments=0,33,drums
"""

import pathlib

from absl import flags

from launch._main import config_file, run
from sage_jax.sample import sample

CONFIG = config_file("configs/sage.py", "What was trained, and how to sample: a config file, :argument.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose newest checkpoint plays.", required=True)
PROMPT = flags.DEFINE_string("prompt", None, "MIDI file to continue; default: start from nothing.")
PROMPT_BARS = flags.DEFINE_integer("prompt_bars", None, "Bars of the prompt to read; default: config.takes.prompt_bars.")
INSTRUMENTS = flags.DEFINE_list("instruments", None, "The only programs that may play, 0 to 127 or drums; default: all.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the takes; default: WORKDIR/takes.")


def main() -> None:
    config = CONFIG.value.to_dict()
    if PROMPT_BARS.value is not None:
        config["takes"]["prompt_bars"] = PROMPT_BARS.value
    output = OUTPUT.value or pathlib.Path(WORKDIR.value) / "takes"
    sample(config, WORKDIR.value, output, PROMPT.value, INSTRUMENTS.value)


if __name__ == "__main__":
    run(main)
