"""Conversion of music21's scores, with a stand-in for the package and with the package itself."""

import sys

import pytest

from sage_jax.corpus import music21_scores as scores
from sage_jax.corpus.preprocess import preprocess
from sage_jax.corpus.sources import list_corpus
from sage_jax.errors import UserError
from sage_jax.music.midi import read_midi

# The part of music21 that music21_scores.py uses: a chorale of four parts with a pickup, a tie, a chord and a grace note.
CONVERTER = """
import os
from types import SimpleNamespace as Bag

def note(offset, length, midi, tie=None):
    tie = tie and Bag(type=tie)
    return Bag(offset=offset, quarterLength=length, isChord=False, isNote=True, pitch=Bag(midi=midi), tie=tie)

def chord(offset, length, *pitches):
    return Bag(offset=offset, quarterLength=length, isChord=True, notes=[note(offset, length, midi) for midi in pitches])

def measure(offset, meter=None):
    return Bag(offset=offset, timeSignature=meter, barDuration=Bag(quarterLength=4.0))

def part(name, shift):
    notes = [note(0.0, 1.0, 72 - shift), note(1.0, 0.0, 90), note(1.0, 4.0, 60 - shift, "start"),
             note(5.0, 2.0, 60 - shift, "stop"), chord(7.0, 2.0, 60 - shift, 64 - shift)]
    measures = [measure(0.0, Bag(numerator=4, denominator=4)), measure(1.0), measure(5.0)]
    return Bag(partName=name, flatten=lambda: Bag(notes=notes), getElementsByClass=lambda name: measures)

def parse(path, forceSource, storePickle):
    if "broken" in path.name:
        raise ValueError("no score")
    with open(os.environ["PARSED"], "a") as log:
        print(path.name, file=log)
    marks = [Bag(offset=0.0, getQuarterBPM=lambda: 72.0), Bag(offset=5.0, getQuarterBPM=lambda: None)]
    parts = [part(name, 5 * index) for index, name in enumerate(("Soprano", "Alto 1", "Tenor", "Bass"))]
    return Bag(parts=parts, flatten=lambda: Bag(getElementsByClass=lambda name: marks))
"""


@pytest.fixture
def music21(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "music21"
    bach = ("bach/bwv1.6.mxl", "bach/bwv2.xml", "bach/bwv3broken.mxl", "bach/bwv846.mxl")
    for name in (*bach, "haydn/opus1/m1.mxl", "joplin/rag.mxl"):
        path = package / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (package / "__init__.py").touch()
    (package / "converter.py").write_text(CONVERTER)
    (tmp_path / "packages" / "music21-1.0.dist-info").mkdir()
    (tmp_path / "packages" / "music21-1.0.dist-info" / "METADATA").write_text("Name: music21\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "music21", raising=False)  # another test may have loaded the real package
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PARSED", str(tmp_path / "parsed"))
    return tmp_path


@pytest.mark.process
def test_scores_are_converted_once(music21):
    files = list_corpus("music21")
    cache = music21 / "cache" / "sage_jax" / "music21-tracks-1.0"
    assert [name for name, _ in files] == ["bach/bwv1.6.mid", "bach/bwv2.mid", "haydn/opus1/m1.mid"]
    assert (cache / "complete").read_text() == "left out: bach/bwv3broken.mxl: ValueError: no score\n"
    parsed = (music21 / "parsed").read_text()
    assert sorted(parsed.split()) == ["bwv1.6.mxl", "bwv2.xml", "m1.mxl"]
    assert list_corpus("music21") == files and (music21 / "parsed").read_text() == parsed
    (cache / "complete").unlink()  # as after a kill: existing files are not converted again
    (cache / "bach" / "bwv2.mid").unlink()
    assert list_corpus("music21") == files and (music21 / "parsed").read_text() == parsed + "bwv2.xml\n"
    assert [name for name, _ in list_corpus("music21:bach")] == ["bwv1.6.mid", "bwv2.mid"]
    with pytest.raises(UserError, match="is 'music21:liszt'; the composers there are bach, haydn"):
        list_corpus("music21:liszt")


@pytest.mark.process
def test_shards_of_a_composer_do_not_depend_on_the_current_folder(music21, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    report = preprocess("music21:bach", tmp_path / "shards", show_progress=False)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert preprocess("music21:bach", tmp_path / "shards", show_progress=False) == {**report, "reused": True}


@pytest.mark.process
def test_scores_keep_parts_ties_pickup_and_tempo(music21):
    piece = read_midi(dict(list_corpus("music21"))["bach/bwv2.mid"])
    assert piece.meters.tolist() == [(0, 4, 4), (12, 4, 4)] and piece.tempos.tolist() == [(0, 72.0)]
    assert set(piece.notes["program"].tolist()) == set(scores.VOICES.values())
    soprano = piece.notes[piece.notes["program"] == scores.VOICES["soprano"]]
    assert soprano[["onset", "pitch", "duration"]].tolist() == [(0, 72, 12), (12, 60, 72), (84, 60, 24), (84, 64, 24)]


def test_missing_music21_raises_with_the_install_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[music21\]'"):
        list_corpus("music21")


def test_a_real_chorale():
    from music21 import corpus

    piece = scores.score_to_piece(corpus.parse("bach/bwv66.6", forceSource=True))
    assert len(piece.notes) == 163 and piece.num_bars == 10 and set(piece.notes["program"].tolist()) == {52, 53, 54, 91}
    assert piece.meters.tolist() == [(0, 4, 4), (480, 4, 4)]
    assert [track.name for track in piece.tracks] == ["Soprano", "Alto", "Tenor", "Bass"]
