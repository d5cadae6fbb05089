"""Shards of a small corpus, and train functions that are compiled once for all runs of a config."""

import dataclasses
import functools
import pathlib
import shutil

import pytest

from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.training import loop
from tests.training.tiny import write_corpus


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> pathlib.Path:
    """Token shards of a dozen random pieces with drums."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    preprocess(f"folder:{folder}", folder / "data", NoteEvents(), PreprocessConfig(workers=1), show_progress=False)
    return folder / "data"


@pytest.fixture
def workdir(shards, tmp_path) -> pathlib.Path:
    """A run's folder that holds only its shards."""
    shutil.copytree(shards, tmp_path / "run" / "data")
    return tmp_path / "run"


class CompiledOnce:
    """A jitted function whose ahead-of-time compilation is cached."""

    def __init__(self, jitted):
        self.jitted, self.compiled = jitted, None

    def lower(self, *args):
        self.compiled = self.compiled or self.jitted.lower(*args).compile()
        return self

    def compile(self):
        return self.compiled


@pytest.fixture(scope="module")
def compiled_once():
    """Makes runs of one config share their compiled functions: a tiny run spends nearly all its time compiling."""
    make_train_functions = loop.make_train_functions

    @functools.cache
    def shared(run, representation):
        functions = make_train_functions(run, representation)
        train_step, eval_step = CompiledOnce(functions.train_step), CompiledOnce(functions.eval_step)
        return dataclasses.replace(functions, train_step=train_step, eval_step=eval_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_functions", shared)
        yield
