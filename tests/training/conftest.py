"""A little corpus, and programs that are compiled once for all runs of one config."""

import dataclasses
import functools
import pathlib
import shutil

import pytest

from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import PreprocessConfig, preprocess
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
    """A run's folder with its shards and nothing else."""
    shutil.copytree(shards, tmp_path / "run" / "data")
    return tmp_path / "run"


class CompiledOnce:
    """A jitted function that is compiled ahead of time at most once, whoever asks for it."""

    def __init__(self, jitted):
        self.jitted, self.compiled = jitted, None

    def lower(self, *args):
        self.compiled = self.compiled or self.jitted.lower(*args).compile()
        return self

    def compile(self):
        return self.compiled


@pytest.fixture(scope="module")
def compiled_once():
    """Runs of one config share their programs: compiling them is nearly all that a tiny run does."""
    make_programs = loop.make_programs

    @functools.cache
    def shared(run, representation):
        programs = make_programs(run, representation)
        return dataclasses.replace(programs, update=CompiledOnce(programs.update), score=CompiledOnce(programs.score))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_programs", shared)
        yield
