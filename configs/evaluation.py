"""Settings of an evaluation: prompts, sampling, likelihood and memorization.

  standard  500 prompts, 4 samples of each (the default)
  full      2,000 prompts, 4 samples of each
  debug     minimal sizes

  python -m launch.evaluate --config=configs/evaluation.py --workdir=runs/demo --output=runs/demo/evaluation
  python -m launch.evaluate --config=configs/evaluation.py:full --workdir=runs/sage,runs/mqa --output=runs/comparison

The fields are documented in sage_jax.evaluation.task.EvaluationConfig.
"""

from ml_collections import ConfigDict

from sage_jax.errors import UserError

ARGUMENTS = ("standard", "full", "debug")


def get_config(arg: str | None = None) -> ConfigDict:
    """The config for one of ARGUMENTS. Raises UserError for an unknown one."""
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
    config.prompt_instruments = False
    config.use_best_checkpoint = False
    config.likelihood_pieces = 0
    config.memorization = True
    config.candidates_include_prompt = True
    config.num_midi_examples = 8
    if arg == "debug":
        config.update(prompts=4, max_bars=4, samples=2, batch_size=4, max_events=64, likelihood_pieces=2, num_midi_examples=1)
    return config
