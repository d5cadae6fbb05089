"""Shards of a small corpus."""

import pathlib
import shutil

import pytest

from sage_jax.corpus.preprocess import PreprocessConfig, preprocess
from sage_jax.tokenizers.note_events import NoteEvents
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
