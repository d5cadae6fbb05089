"""A stand-in for apache_beam in one process, with only what runners.py uses."""

import pickle
import random
import sys
from types import ModuleType


class Pipeline:
    def __init__(self, options):
        self.options = options

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __or__(self, transform):
        return Collection(transform.apply([]))


class Collection:
    def __init__(self, values):
        self.values = values

    def __or__(self, transform):
        return Collection(transform.apply(self.values))


class Transform:
    def __init__(self, apply):
        self.apply = apply

    def __rrshift__(self, label):
        return self


def shuffled(values):
    return random.Random(0).sample(values, len(values))


def install(monkeypatch) -> None:
    """Makes `import apache_beam` return the stand-in."""
    beam = ModuleType("apache_beam")
    beam.Pipeline = Pipeline
    beam.Create = lambda values: Transform(lambda _: list(values))
    beam.Reshuffle = lambda: Transform(shuffled)
    beam.Map = lambda function, *more: Transform(
        lambda values: [function(value, *pickle.loads(pickle.dumps(more))) for value in values]
    )
    options = ModuleType("apache_beam.options.pipeline_options")
    options.PipelineOptions = list
    modules = {beam.__name__: beam, "apache_beam.options": ModuleType("apache_beam.options"), options.__name__: options}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
