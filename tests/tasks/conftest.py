"""Shared token shards."""

import pytest

from sage_jax.corpus.preprocess import preprocess
from sage_jax.tokenizers.note_events import NoteEvents
from tests.music.midi_files import write_pieces


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Token shards of a dozen pieces."""
    folder = tmp_path_factory.mktemp("shards")
    midi = folder / "midi"
    midi.mkdir()
    write_pieces(midi, 12)
    preprocess(f"folder:{midi}", folder / "data", NoteEvents(), show_progress=False)
    return folder / "data"
