"""The page that is made: blind, balanced, whole or not at all."""

import json
import re
import subprocess
import sys

import pytest

from sage_jax.errors import UserError
from sage_jax.evaluation.listening import ListeningConfig, make_test
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import DRUMS, Piece

SYSTEMS = ("model", "truth", "markov")


def tune(seed: int) -> Piece:
    return Piece.from_notes(
        [(6 * n, 40 * (n % 2), 55 + (seed * n) % 13, 6, 80) for n in range(24)] + [(12 * n, DRUMS, 36, 6, 90) for n in range(12)], qpm=300
    )


def write_systems(folder, pieces: int = 3) -> dict:
    outputs = {name: folder / name for name in SYSTEMS}
    for number, path in enumerate(outputs.values()):
        for piece in range(pieces):
            save_midi(tune(1 + number + 3 * piece), path / f"{piece:04d}.mid")
    return outputs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listening")
    outputs = write_systems(folder)
    config = ListeningConfig(ratings=6, pairs=6, prompt_bars=1, anchors=("truth", "markov"), title="Which </script> one?")
    key = make_test(outputs, folder / "site", config, say=lambda line: None)
    page = (folder / "site" / "index.html").read_text()
    test = json.loads(re.search(r'<script type="application/json" id="test">(.*?)</script>', page, re.DOTALL)[1])
    return folder, test, json.loads(key.read_text())


def test_the_page_says_nothing_of_who_made_what(made):
    folder, test, key = made
    page = (folder / "site" / "index.html").read_text()
    for name in (*SYSTEMS, "0000.mid"):
        assert name not in page
    assert {path.stem for path in (folder / "site" / "clips").iterdir()} == set(test["clips"]) == set(key["clips"])
    assert list(test["clips"]) == sorted(test["clips"])  # in no order of systems
    assert len({path.stat().st_mtime for path in (folder / "site" / "clips").iterdir()}) == 1
    assert test["title"] == "Which </script> one?" and test["id"] == key["test"]
    assert {path.name for path in folder.iterdir()} - {"again"} == {"markov", "model", "site", "site.key.json", "truth"}


def test_every_form_is_balanced_and_mixed(made):
    _, test, key = made
    system = lambda clip: key["clips"][clip]["system"]
    orders = set()
    for form in test["forms"]:
        singles, pairs = form[:6], form[6:]
        assert sorted(system(clip) for (clip,) in singles) == sorted(SYSTEMS * 2)
        assert len({tuple(sorted(map(system, pair))) for pair in pairs}) == 3
        for one, other in pairs:
            assert key["clips"][one]["piece"] == key["clips"][other]["piece"] and system(one) != system(other)
        pieces = [key["clips"][item[0]]["piece"] for item in singles]
        assert sum(a == b for a, b in zip(pieces, pieces[1:], strict=False)) <= 1
        orders.add(json.dumps(form))
    assert len(orders) > 50
    firsts = [system(form[-1][0]) for form in test["forms"]]
    assert all(firsts.count(name) > 3 for name in SYSTEMS)  # which one is A is drawn


def test_clips_are_equally_loud_and_drawn_with_their_prompt(made):
    soundfile = pytest.importorskip("soundfile")
    folder, test, _ = made
    for name, clip in test["clips"].items():
        samples, rate = soundfile.read(folder / "site" / "clips" / f"{name}.mp3")
        assert rate == 48_000 and abs(len(samples) / rate - clip["seconds"]) < 0.2
        assert abs(samples).max() < 1 and 0.02 < (samples**2).mean() ** 0.5 < 0.09
        assert len(clip["notes"]) == 36 and {note[3] for note in clip["notes"]} == {0, 1, -1}
        assert clip["prompt"] == pytest.approx(0.8)


def test_a_test_made_again_is_another_test(made):
    folder, test, key = made
    outputs = {name: folder / name for name in SYSTEMS}
    again = make_test(outputs, folder / "again" / "site", ListeningConfig(clips=1), say=lambda line: None)
    other = json.loads(again.read_text())
    assert other["test"] != key["test"] and not set(other["clips"]) & set(key["clips"])


def test_folders_that_do_not_fit_are_named_and_nothing_is_touched(made, tmp_path):
    folder, _, _ = made
    outputs = write_systems(tmp_path, 2)
    site = tmp_path / "site"
    (outputs["truth"] / "0001.mid").unlink()
    with pytest.raises(UserError, match="truth lacks 0001.mid, which model has"):
        make_test(outputs, site, ListeningConfig())
    save_midi(Piece.from_notes([]), outputs["truth"] / "0001.mid")
    with pytest.raises(UserError, match="has no notes; silence cannot be judged"):
        make_test(outputs, site, ListeningConfig(), say=lambda line: None)
    with pytest.raises(UserError, match="which is not a folder"):
        make_test({"a": tmp_path / "nowhere"}, site, ListeningConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no MIDI file"):
        make_test({"a": tmp_path / "empty"}, site, ListeningConfig())
    with pytest.raises(UserError, match="no output called human"):
        make_test(outputs, site, ListeningConfig(anchors=("human",)))
    # What is there already stays, be it a page that answers belong to.
    page = (folder / "site" / "index.html").read_text()
    with pytest.raises(UserError, match="is there already"):
        make_test(write_systems(tmp_path / "again", 1), folder / "site", ListeningConfig())
    assert (folder / "site" / "index.html").read_text() == page
    for flaw, message in (({"clips": 0}, "--clips is 0"), ({"ratings": 0, "pairs": 0}, "both 0"), ({"post": "ftp://x"}, "--post")):
        with pytest.raises(UserError, match=message):
            ListeningConfig(**flaw)
    assert not site.exists() and not (tmp_path / "site.key.json").exists()


def test_the_script_makes_and_analyses(made, tmp_path):
    folder, test, key = made
    outputs = [f"{name}={folder / name}" for name in SYSTEMS]
    command = [sys.executable, "-m", "launch.listening"]
    run = lambda *flags: subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    done = run("--outputs", *outputs, "--anchors=truth", "--clips=1", f"--output={tmp_path / 'site'}")
    assert done.returncode == 0, done.stderr
    key = json.loads((tmp_path / "site.key.json").read_text())
    clip = next(iter(key["clips"]))
    (tmp_path / "answers").mkdir()
    told = {"test": key["test"], "rater": "x", "complete": True, "answers": {"0": {"clips": [clip], "value": 4}}}
    (tmp_path / "answers" / "answers-1.json").write_text(json.dumps(told))
    done = run(f"--analyse={tmp_path / 'answers'}", f"--output={tmp_path / 'site'}")
    assert done.returncode == 0 and "4.00" in done.stdout
    assert (tmp_path / "site.results.md").exists() and json.loads((tmp_path / "site.results.json").read_text())["listeners"] == 1
    for flags, message in ((["--outputs", "=model"], "give each as NAME=FOLDER"), ([f"--analyse={tmp_path}", "--clips=2"], "can't be read")):
        wrong = run(*flags, f"--output={tmp_path / 'other'}")
        assert wrong.returncode == 2 and message in wrong.stderr and len(wrong.stderr.strip().splitlines()) == 1
