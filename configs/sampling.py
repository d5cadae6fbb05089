"""Sampling settings that differ from those of the model's own run. A field that is not set keeps the run's value.

  python -m launch.sample --workdir=runs/demo --prompt=song.mid
  python -m launch.sample --workdir=runs/demo --prompt=song.mid --config.sampling.temperature=0.9

What each field means is documented in sage_jax.decoding.sampling.SamplingConfig and sage_jax.takes.ContinuationConfig.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Every field, not set."""
    config = ConfigDict()
    config.sampling = dict(
        temperature=placeholder(float), top_k=placeholder(int), top_p=placeholder(float), min_p=placeholder(float)
    )
    config.continuation = dict(
        num_samples=placeholder(int),
        prompt_bars=placeholder(int),
        num_bars=placeholder(int),
        max_events=placeholder(int),
        seed=placeholder(int),
        qpm=placeholder(float),
        meter=placeholder(tuple),
        pitches=placeholder(str),
    )
    return config
