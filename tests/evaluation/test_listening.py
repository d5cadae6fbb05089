"""The listening test is blind and balanced, and is written completely or not at all."""

import itertools
import json
import re
import shutil
import subprocess
import sys

import pytest

from sage_jax.errors import UserError
from sage_jax.evaluation.listening import ListeningConfig, example_outputs, make_test
from sage_jax.evaluation.responses import analyse_test
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import DRUMS, Piece

SYSTEMS = ("model", "truth", "markov")


def tune(seed: int) -> Piece:
    return Piece.from_notes(
        [(6 * n, 40 * (n % 2), 55 + (seed * n) % 13, 6, 80) for n in range(24)]
        + [(12 * n, DRUMS, 36, 6, 90) for n in range(12)],
        qpm=300,
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


def test_the_page_does_not_reveal_the_systems(made):
    folder, test, key = made
    page = (folder / "site" / "index.html").read_text()
    for name in (*SYSTEMS, "0000.mid"):
        assert name not in page
    assert {path.stem for path in (folder / "site" / "clips").iterdir()} == set(test["clips"]) == set(key["clips"])
    assert list(test["clips"]) == sorted(test["clips"])  # not ordered by system
    assert len({path.stat().st_mtime for path in (folder / "site" / "clips").iterdir()}) == 1
    assert test["title"] == "Which </script> one?" and test["id"] == key["test"]
    assert {path.name for path in folder.iterdir()} - {"again"} == {"markov", "model", "site", "site.key.json", "truth"}


def test_every_form_is_balanced_and_shuffled(made):
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
        assert sum(a == b for a, b in itertools.pairwise(pieces)) <= 1
        orders.add(json.dumps(form))
    assert len(orders) > 50
    firsts = [system(form[-1][0]) for form in test["forms"]]
    assert all(firsts.count(name) > 3 for name in SYSTEMS)  # the order within a pair is random


def test_clips_have_equal_loudness_and_a_piano_roll_with_the_prompt(made):
    soundfile = pytest.importorskip("soundfile")
    folder, test, _ = made
    for name, clip in test["clips"].items():
        samples, rate = soundfile.read(folder / "site" / "clips" / f"{name}.mp3")
        assert rate == 48_000 and abs(len(samples) / rate - clip["seconds"]) < 0.2
        assert abs(samples).max() < 1 and 0.02 < (samples**2).mean() ** 0.5 < 0.09
        assert len(clip["notes"]) == 36 and {note[3] for note in clip["notes"]} == {0, 1, -1}
        assert clip["prompt"] == pytest.approx(0.8)


def test_a_second_test_has_new_names(made):
    folder, _, key = made
    outputs = {name: folder / name for name in SYSTEMS}
    again = make_test(outputs, folder / "again" / "site", ListeningConfig(clips=1), say=lambda line: None)
    other = json.loads(again.read_text())
    assert other["test"] != key["test"] and not set(other["clips"]) & set(key["clips"])


def test_mismatched_folders_are_named_and_nothing_is_written(made, tmp_path):
    folder, _, _ = made
    outputs = write_systems(tmp_path, 2)
    site = tmp_path / "site"
    (outputs["truth"] / "0001.mid").unlink()
    with pytest.raises(UserError, match="truth lacks 0001.mid, which model has"):
        make_test(outputs, site, ListeningConfig())
    save_midi(Piece.from_notes([]), outputs["truth"] / "0001.mid")
    with pytest.raises(UserError, match="has no notes and cannot be judged"):
        make_test(outputs, site, ListeningConfig(), say=lambda line: None)
    with pytest.raises(UserError, match="which is not a folder"):
        make_test({"a": tmp_path / "nowhere"}, site, ListeningConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no MIDI file"):
        make_test({"a": tmp_path / "empty"}, site, ListeningConfig())
    with pytest.raises(UserError, match="no output named human"):
        make_test(outputs, site, ListeningConfig(anchors=("human",)))
    # An existing page is not overwritten.
    page = (folder / "site" / "index.html").read_text()
    with pytest.raises(UserError, match="exists, and answers may belong to it"):
        make_test(write_systems(tmp_path / "again", 1), folder / "site", ListeningConfig())
    assert (folder / "site" / "index.html").read_text() == page
    with pytest.raises(UserError, match="give a folder for each system"):
        make_test({}, site, ListeningConfig())
    mistakes = [({"clips": 0}, "--clips is 0"), ({"ratings": 0, "pairs": 0}, "both 0"), ({"post": "ftp://x"}, "--post")]
    for wrong, message in mistakes:
        with pytest.raises(UserError, match=message):
            ListeningConfig(**wrong)
    assert not site.exists() and not (tmp_path / "site.key.json").exists()


def test_analyse_test_writes_its_tables(made, tmp_path):
    folder, _, key = made
    clip = next(iter(key["clips"]))
    content = {"test": key["test"], "rater": "x", "complete": True, "answers": {"0": {"clips": [clip], "value": 4}}}
    (tmp_path / "answers-1.json").write_text(json.dumps(content))
    shutil.copy(folder / "site.key.json", tmp_path / "site.key.json")
    text = analyse_test(tmp_path, tmp_path / "site")
    assert "4.00" in text and (tmp_path / "site.results.md").read_text() == text + "\n"
    assert json.loads((tmp_path / "site.results.json").read_text())["listeners"] == 1
    with pytest.raises(UserError, match="can't be read"):
        analyse_test(tmp_path, tmp_path / "other")


def test_the_files_of_examples_are_sorted_by_system(tmp_path):
    for name in ("0000-model.mid", "0000-truth.mid", "0062-model.mid", "0062-truth.mid"):
        save_midi(tune(1), tmp_path / "examples" / name)
    outputs = example_outputs(tmp_path / "examples", tmp_path / "sorted")
    assert {name: sorted(path.name for path in folder.iterdir()) for name, folder in outputs.items()} == {
        "model": ["0000.mid", "0062.mid"], "truth": ["0000.mid", "0062.mid"],
    }  # fmt: skip
    with pytest.raises(UserError, match="--examples: .* has no files PROMPT-SYSTEM.mid"):
        example_outputs(tmp_path, tmp_path / "none")


@pytest.mark.process
def test_the_script_makes_and_analyses_a_test(made, tmp_path):
    folder, _, _ = made
    command = [sys.executable, "-m", "launch.listening", f"--output={tmp_path / 'site'}"]
    run = lambda *flags: subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    done = run("--outputs", *(f"{name}={folder / name}" for name in SYSTEMS), "--anchors=truth", "--clips=1")
    assert done.returncode == 0 and (tmp_path / "site" / "index.html").exists(), done.stderr
    wrong = run(f"--analyse={tmp_path / 'nowhere'}")
    assert wrong.returncode == 2 and "nowhere is not a folder" in wrong.stderr and len(wrong.stderr.strip().splitlines()) == 1
