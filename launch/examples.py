"""Writes a page of examples: prompts of an evaluation and what each system makes of them, as pictures and recordings.

  python -m launch.model_card --model=sage-20m --workdir=runs/legal --output=runs/card --config.prompt_instruments=True
  python -m launch.examples --evaluation=runs/card --output=docs/examples.md

The page has the continuations that launch.evaluate or launch.model_card wrote (--config.num_midi_examples, by default of eight
prompts, evenly spread). They are not chosen. Levels and densities are measured and shown.
"""

import pathlib

from absl import flags

from launch._main import run
from sage_jax.rendering.examples import write_examples

ABOUT = """# Examples

Continuations of held-out prompts, evenly spread over the split and not chosen. Each clip begins with the prompt.
`truth` is how the piece goes on, and `loop` repeats the prompt. Recordings have the same loudness unless they would clip:
a root mean square of 0.08. Notes per second count the continuation alone. `python -m launch.examples` makes this page."""

EVALUATION = flags.DEFINE_string("evaluation", None, "Folder of launch.evaluate or launch.model_card.", required=True)
SYSTEMS = flags.DEFINE_list("systems", ["model", "loop", "truth"], "Systems to show, by their names in the evaluation.")
OUTPUT = flags.DEFINE_string("output", None, "The page, a .md file; its files go into a folder beside it.", required=True)


def main() -> None:
    rows = write_examples(EVALUATION.value, SYSTEMS.value, pathlib.Path(OUTPUT.value), ABOUT)
    quiet = [f"{row['system']} of {row['piece']}" for row in rows if row["recording"].silence > 0.5]
    print(f"{OUTPUT.value}: {len(rows)} clips" + (f"; more than half silent: {', '.join(quiet)}" if quiet else ""))


if __name__ == "__main__":
    run(main)
