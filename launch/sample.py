"""Continues a MIDI file, or starts from nothing: MIDI, picture and WAV of every take.

  python -m launch.sample --workdir=runs/demo --prompt=song.mid
  python -m launch.sample --workdir=runs/demo --prompt=song.mid --instruments=any --bars=16
  python -m launch.sample --workdir=runs/demo --instruments=0,33,drums
  python -m launch.sample --model=weights/demo --prompt=song.mid --output=takes
  python -m launch.sample --workdir=runs/roles --prompt=song.mid --task=accompany --own=33,drums --lead=1bar
  python -m launch.sample --workdir=runs/roles --prompt=song.mid --task=infill --bars=5-8

The model, its vocabulary and its sampling settings come from the folder; --config.sampling.FIELD and
--config.continuation.FIELD change the latter.
"""

import pathlib

from absl import flags

from launch._main import config_file, run
from sage_jax.api import load
from sage_jax.errors import UserError
from sage_jax.sample import TASKS, rewrite, sample

CONFIG = config_file("configs/sampling.py", "Sampling settings that differ from the run's own.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose newest checkpoint plays.")
MODEL = flags.DEFINE_string("model", None, "Weights that play instead: a name, or a folder of launch.export.")
BEST = flags.DEFINE_bool("best", False, "Whether the checkpoint with the lowest validation loss plays instead of the newest.")
PROMPT = flags.DEFINE_string("prompt", None, "MIDI file to continue; default: start from nothing.")
PROMPT_BARS = flags.DEFINE_integer("prompt_bars", None, "Bars of the prompt that the model reads; default: the run's.")
BARS = flags.DEFINE_string("bars", None, "New bars, default the run's; of the other tasks the bars to write, such as 5-8.")
INSTRUMENTS = flags.DEFINE_list(
    "instruments", None, "Instruments that may play: programs 0 to 127, names, drums; or any. Default: the prompt's own."
)
TASK = flags.DEFINE_enum("task", "continue", TASKS, "Continue the prompt, write tracks to its others, or rewrite bars of it.")
OWN = flags.DEFINE_list("own", None, "Tracks that the model writes in the tasks accompany and infill, as in --instruments.")
LEAD = flags.DEFINE_string("lead", "1bar", "When the model knows the others: 2bar, 1bar, 0 at once, -0.5 late by quarters.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the takes; default: WORKDIR/takes, or takes.")


def main() -> None:
    config = CONFIG.value.to_dict()
    config["continuation"].update({"prompt_bars": PROMPT_BARS.value} if PROMPT_BARS.value is not None else {})
    if TASK.value == "continue" and BARS.value is not None:
        config["continuation"].update(num_bars=_number_of(BARS.value))
    source = WORKDIR.value or MODEL.value
    if source is None or (WORKDIR.value and MODEL.value):
        raise UserError("give --workdir=RUN or --model=NAME, and not both")
    model = load(source, best=BEST.value, settings=config)
    instruments = "any" if INSTRUMENTS.value == ["any"] else INSTRUMENTS.value
    output = OUTPUT.value or pathlib.Path(WORKDIR.value or "") / "takes"
    if TASK.value == "continue":
        if OWN.value:
            raise UserError("--own is for the tasks accompany and infill; --instruments says who continues")
        sample(model, output, PROMPT.value, instruments)
    elif PROMPT.value is None or INSTRUMENTS.value:
        raise UserError(f"--task={TASK.value} needs --prompt=FILE, and --own in the place of --instruments")
    elif TASK.value == "accompany" and not OWN.value:
        raise UserError("--task=accompany needs --own, the tracks that the model writes, such as --own=33,drums")
    else:
        rewrite(model, output, PROMPT.value, TASK.value, OWN.value, BARS.value, LEAD.value)


def _number_of(bars: str) -> int:
    if not bars.isdecimal():
        raise UserError(f"--bars is {bars!r}; give a number of new bars, or --task=infill to rewrite these bars")
    return int(bars)


if __name__ == "__main__":
    run(main)
