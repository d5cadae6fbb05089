"""Compares sampling settings of a model on prompts of the validation split.

  python -m launch.sampling_grid --model=sage-20m --workdir=runs/legal --output=runs/grid --config.prompts=200
  python -m launch.sampling_grid --model=sage-20m --workdir=runs/legal --output=runs/grid --temperature=0.9,1 --min_p=

Each temperature is combined with each top_p and with each min_p. Continuations keep to the prompt's instruments, as those of
launch.sample. The table, best NMSI first, is printed and written to grid.md in --output.
"""

import pathlib

from absl import flags

from launch._main import config_file, run
from sage_jax.errors import UserError
from sage_jax.evaluation.sampling_grid import as_markdown, sampling_grid, settings_of
from sage_jax.evaluation.task import EvaluationConfig
from sage_jax.files import replacing

CONFIG = config_file("configs/evaluation.py", "The evaluation's settings; its split and sampling are not used.")
MODEL = flags.DEFINE_string("model", None, "The weights: a name, a folder of launch.export, or a run's folder.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder whose `data` has the shards of the corpus.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the table and the generated events.", required=True)
GRID = {
    "temperature": flags.DEFINE_list("temperature", ["0.85", "0.95", "1.0"], "Temperatures."),
    "top_p": flags.DEFINE_list("top_p", ["0.85", "0.9", "0.95", "0.98"], "Values of top_p, each without min_p."),
    "min_p": flags.DEFINE_list("min_p", ["0.02", "0.05", "0.1"], "Values of min_p, each without top_p."),
}


def main() -> None:
    fields = {**CONFIG.value.to_dict(), "split": "valid", "prompt_instruments": True}
    try:
        values = {name: [float(each) for each in flag.value] for name, flag in GRID.items()}
    except ValueError as error:
        raise UserError(f"{error}; give numbers separated by commas to --{', --'.join(GRID)}") from error
    say = lambda done, total: print(f"{done} of {total} settings", flush=True)
    config, output = EvaluationConfig.from_dict(fields), pathlib.Path(OUTPUT.value)
    rows = sampling_grid(MODEL.value, pathlib.Path(WORKDIR.value), config, settings_of(values), output, say)
    with replacing(output / "grid.md") as temporary:
        temporary.write_text(as_markdown(rows) + "\n")
    print(as_markdown(rows))


if __name__ == "__main__":
    run(main)
