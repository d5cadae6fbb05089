"""What is in the checkout besides code: the embedded corpus as its manifest says, and what a fresh clone needs."""

import csv
import hashlib
import pathlib
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
MIDI = ROOT / "third_party" / "midi"


def test_embedded_corpus_is_what_its_manifest_says():
    with (MIDI / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    files = {path.relative_to(MIDI).as_posix(): path for path in MIDI.rglob("*.mid")}
    assert files.keys() == rows.keys()
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == rows[name]["sha256"], name
        assert (MIDI / "LICENSES" / f"{name.split('/')[0]}.txt").is_file(), f"{name} has no licence"


def test_pyproject_holds_only_the_build_system():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text()).keys() == {"build-system"}
