"""How systems are compared: the four-bar-prompt task, its floors, likelihood, syntax and memory.

  standard  500 prompts, 4 samples of each (the default)
  full      2,000 prompts, 4 samples of each
  debug     a few of everything

  python -m launch.evaluate --config=configs/evaluation.py --workdir=runs/demo --output=runs/demo/evaluation
  python -m launch.evaluate --config=configs/evaluation.py:full --workdir=runs/sage,runs/mqa --output=runs/comparison

What each field means is told by sage_jax.evaluation.task.EvaluationConfig.
"""

from ml_collections import ConfigDict

from sage_jax.errors import UserError

ARGUMENTS = ("standard", "full", "debug")


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of one of ARGUMENTS."""
    arg = arg or "standard"
    if arg not in ARGUMENTS:
        raise UserError(f"configs/evaluation.py has no argument {arg!r}; choose one of {', '.join(ARGUMENTS)}")
    config = ConfigDict()
    config.split = "test"
    config.prompts = 2000 if arg == "full" else 500
    config.prompt_bars = 4
    config.max_bars = 16
    config.samples = 4
    config.batch_size = 64
    config.max_events = 2048
    config.seed = 0
    config.sampling = dict(temperature=1.0, top_k=0, top_p=0.98, min_p=0.0)
    config.best = False
    config.likelihood_pieces = 0
    config.memory = True
    config.candidates_hold_prompt = True
    config.midi = 8
    if arg == "debug":
        config.update(prompts=4, max_bars=4, samples=2, batch_size=4, max_events=64, likelihood_pieces=2, midi=1)
    return config
