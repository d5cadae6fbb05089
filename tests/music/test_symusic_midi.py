"""The reader through symusic gives what the one through pretty_midi gives, to the last bit, but where it says otherwise."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sage_jax.errors import UserError
from sage_jax.music import symusic_midi
from sage_jax.music.corpus import list_corpus
from sage_jax.music.events import NoteEvents
from sage_jax.music.grid import to_piece
from sage_jax.music.loss import GridLoss
from sage_jax.music.midi import BadMidi, parse_columns, save_midi
from sage_jax.music.preprocess import PreprocessConfig, preprocess
from sage_jax.music.symusic_midi import parse_symusic
from tests.music.midi_files import midi_bytes, write_pieces
from tests.music.pieces import pieces


def on(wait: int, pitch: int = 60, velocity: int = 64, channel: int = 0) -> bytes:
    return bytes([wait, 0x90 | channel, pitch, velocity])


def off(wait: int, pitch: int = 60, channel: int = 0) -> bytes:
    return bytes([wait, 0x80 | channel, pitch, 0])


def tempo(wait: int, microseconds: int) -> bytes:
    return bytes([wait]) + b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def meter(wait: int, numerator: int, exponent: int) -> bytes:
    return bytes([wait]) + b"\xff\x58\x04" + bytes([numerator, exponent, 24, 8])


def key(sharps: int, mode: int = 0) -> bytes:
    return b"\0\xff\x59\x02" + bytes([sharps % 256, mode])


def program(wait: int, number: int, channel: int = 0) -> bytes:
    return bytes([wait, 0xC0 | channel, number])


def both(path):
    """(piece, what the grid lost) with each reader."""
    found = []
    for parse in (parse_columns, parse_symusic):
        loss = GridLoss()
        found.append((to_piece(parse(path), loss=loss), loss))
    return found


NOTE = on(0) + off(48)
SAME = {
    "overlaps end together": (on(0) + on(10) + off(10) + off(10) + on(3) + off(10),),
    "again at the end": (on(0) + off(10) + on(0) + off(10) + on(10) + on(5) + off(0) + off(10),),
    "no length": (on(0) + off(0) + on(5) + off(5), on(0) + off(0)),
    "never ends": (on(0) + on(0, 62) + off(5, 62),),
    "a note-off too many": (off(5) + on(5) + off(5) + off(5),),
    "drums and channels of one program": (NOTE + on(0, 60, 64, 9) + off(48, 60, 9) + on(0, 60, 1, 5) + off(9, 60, 5),),
    "programs between notes": (program(0, 5) + NOTE + program(0, 9) + NOTE + program(0, 5) + NOTE,),
    "tempos and meters on later tracks": (
        tempo(0, 400_000) + meter(0, 3, 2) + NOTE,
        tempo(0, 900_000) + tempo(100, 300_000) + meter(1, 5, 2) + NOTE,
    ),
    "tempos on a later track alone": (b"", tempo(0, 900_000) + NOTE),
    "tempos again and at once": (
        tempo(0, 333_333) + tempo(0, 500_001) + tempo(9, 500_001) + tempo(7, 416_667) + tempo(0, 461_538) + 9 * NOTE,
    ),
    "meters on one tick, or beyond reason": (meter(0, 3, 2) + meter(0, 6, 3) + meter(96, 7, 5) + meter(90, 4, 8) + 9 * NOTE,),
    "pedal and bends": (b"\0\xb0\x40\x7f" + NOTE + b"\0\xe0\0\x50" + program(0, 3) + NOTE + b"\0\xb0\x40\0",),
    "text that looks like a tempo": (NOTE, b"\0\xff\x01\x06\xff\x51\x03\x07\xa1\x20" + NOTE),
    "no notes": (program(0, 5),),
}


@pytest.mark.parametrize("tracks", SAME.values(), ids=SAME)
def test_both_readers_read_alike(tracks, tmp_path):
    (tmp_path / "a.mid").write_bytes(midi_bytes(*tracks, ticks=96))
    (piece, loss), (other, lost) = both(tmp_path / "a.mid")
    assert piece == other and vars(loss) == vars(lost)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces())
def test_written_pieces_are_read_alike(tmp_path, piece):
    save_midi(piece, tmp_path / "a.mid")
    parsed = [parse(tmp_path / "a.mid") for parse in (parse_columns, parse_symusic)]
    names = ("program", "start", "pitch", "end", "velocity")
    for name in names:
        rows = [np.lexsort([getattr(each, key) for key in names[::-1]]) for each in parsed]
        ours, theirs = (getattr(each, name)[order] for each, order in zip(parsed, rows, strict=True))
        assert np.array_equal(ours, theirs), name
    assert all(np.array_equal(getattr(parsed[0], name), getattr(parsed[1], name)) for name in ("tempo_times", "qpm"))
    assert parsed[0].meters == parsed[1].meters and sorted(parsed[0].track_programs) == sorted(parsed[1].track_programs)


def test_the_embedded_corpus_is_read_alike():
    differ = []
    for name, path in list_corpus("embedded")[::6]:
        (piece, loss), (other, lost) = both(path)
        if piece != other or vars(loss) != vars(lost):
            differ.append(name)
    assert differ == []


DIFFERENT = {
    "a note-on without its own note-off is gone": (on(0) + on(10) + off(10), [(0, 20)]),
    "a program change below a note": (program(0, 5) + on(0) + program(5, 9) + off(5), [(0, 10)]),
}


@pytest.mark.parametrize("track, notes", DIFFERENT.values(), ids=DIFFERENT)
def test_where_they_differ_is_known(track, notes, tmp_path):
    (tmp_path / "a.mid").write_bytes(midi_bytes(track, ticks=12))
    (piece, _), (other, _) = both(tmp_path / "a.mid")
    assert piece != other
    assert list(zip(other.notes["onset"], other.notes["duration"], strict=True)) == notes


BROKEN = {
    "a meter of no beats": (meter(0, 0, 2) + NOTE,),
    "a key of nine sharps": (key(9) + NOTE,),
    "a key of no mode": (key(0, 2) + NOTE,),
    "no tempo": (tempo(0, 0) + NOTE,),
    "no track": (),
    "too late": (b"\x84\xe2\xad\x01" + NOTE[1:],),
}


@pytest.mark.parametrize("tracks", BROKEN.values(), ids=BROKEN)
def test_both_readers_give_up_alike(tracks, tmp_path):
    (tmp_path / "a.mid").write_bytes(midi_bytes(*tracks))
    for parse in (parse_columns, parse_symusic):
        with pytest.raises(BadMidi, match="a.mid") as error:
            parse(tmp_path / "a.mid")
        assert error.value.reason == "broken"


def test_a_file_cut_short_is_broken(tmp_path):
    whole = midi_bytes(NOTE * 20, NOTE * 20)
    for length in range(15, len(whole), 7):
        (tmp_path / "a.mid").write_bytes(whole[:length])
        with pytest.raises(BadMidi):
            parse_symusic(tmp_path / "a.mid")


def test_report_and_shards_are_the_same_with_either_reader(tmp_path):
    midi = tmp_path / "midi"
    midi.mkdir()
    write_pieces(midi, 12)
    reports, shards = [], []
    for reader in ("pretty_midi", "symusic"):
        config = PreprocessConfig(workers=1, reader=reader)
        reports.append(preprocess(f"folder:{midi}", tmp_path / reader, NoteEvents(), config, show_progress=False))
        shards.append([path.read_bytes() for path in sorted((tmp_path / reader).rglob("*.npy"))])
        for field in ("worker_seconds", "files_per_second_per_core", "parsing_share"):
            reports[-1].pop(field)
    assert reports[0] == reports[1] and shards[0] == shards[1]
    again = dataclasses.replace(config, reader="pretty_midi")
    assert preprocess(f"folder:{midi}", tmp_path / "symusic", NoteEvents(), again, show_progress=False)["reused"]


def test_a_reader_that_is_not_there_is_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="preprocess.reader is 'mido'; choose one of pretty_midi, symusic"):
        PreprocessConfig(reader="mido")
    monkeypatch.setattr(symusic_midi.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'symusic', which is not installed; pip install -e '.\[symusic\]'"):
        preprocess("embedded", tmp_path / "out", NoteEvents(), PreprocessConfig(reader="symusic"))
    assert not (tmp_path / "out").exists()
