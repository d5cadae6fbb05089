"""Continues a MIDI file, or starts from nothing: MIDI, picture and WAV of every take.

  python -m launch.sample --workdir=runs/demo --prompt=song.mid
  python -m launch.sample --workdir=runs/demo --prompt=song.mid --instruments=any --bars=16
  python -m launch.sample --workdir=runs/demo --instruments=0,33,drums
  python -m launch.sample --model=weights/demo --prompt=song.mid --output=takes

The model, its vocabulary and its sampling settings come from the folder; --config.sampling.FIELD and
--config.continuation.FIELD change the latter.
"""

import pathlib

from absl import flags

from launch._main import config_file, run
from sage_jax.api import load
from sage_jax.errors import UserError
from sage_jax.sample import sample

CONFIG = config_file("configs/sampling.py", "Sampling settings that differ from the run's own.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose newest checkpoint plays.")
MODEL = flags.DEFINE_string("model", None, "Weights that play instead: a name, or a folder of launch.export.")
BEST = flags.DEFINE_bool("best", False, "Whether the checkpoint with the lowest validation loss plays instead of the newest.")
PROMPT = flags.DEFINE_string("prompt", None, "MIDI file to continue; default: start from nothing.")
PROMPT_BARS = flags.DEFINE_integer("prompt_bars", None, "Bars of the prompt that the model reads; default: the run's.")
BARS = flags.DEFINE_integer("bars", None, "New bars; default: the run's.")
INSTRUMENTS = flags.DEFINE_list(
    "instruments", None, "Instruments that may play: programs 0 to 127, names, drums; or any. Default: the prompt's own."
)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the takes; default: WORKDIR/takes, or takes.")


def main() -> None:
    config = CONFIG.value.to_dict()
    config["continuation"].update({"prompt_bars": PROMPT_BARS.value} if PROMPT_BARS.value is not None else {})
    config["continuation"].update({"num_bars": BARS.value} if BARS.value is not None else {})
    source = WORKDIR.value or MODEL.value
    if source is None or (WORKDIR.value and MODEL.value):
        raise UserError("give --workdir=RUN or --model=NAME, and not both")
    model = load(source, best=BEST.value, settings=config)
    instruments = "any" if INSTRUMENTS.value == ["any"] else INSTRUMENTS.value
    output = OUTPUT.value or pathlib.Path(WORKDIR.value or "") / "takes"
    sample(model, output, PROMPT.value, instruments)


if __name__ == "__main__":
    run(main)
