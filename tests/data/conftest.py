"""Music that batches are made of."""

import pytest

from sage_jax.music.events import NoteEvents
from sage_jax.music.preprocess import preprocess
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
