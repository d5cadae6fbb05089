"""What is in the checkout besides code: the embedded corpus, the metadata and constraints of the package, and the wheel."""

import configparser
import csv
import hashlib
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
MIDI = ROOT / "third_party" / "midi"
CONSTRAINTS = sorted((ROOT / "constraints").glob("py*.txt"))
ACCELERATORS = ("cuda12", "cuda13", "tpu")


def test_embedded_corpus_matches_its_manifest():
    with (MIDI / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    files = {path.relative_to(MIDI).as_posix(): path for path in MIDI.rglob("*.mid")}
    assert files.keys() == rows.keys()
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == rows[name]["sha256"], name
        assert (MIDI / "LICENSES" / f"{name.split('/')[0]}.txt").is_file(), f"{name} has no licence"


def test_pyproject_holds_the_build_system_and_tools():
    """The metadata is in setup.cfg."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text()).keys() == {"build-system", "tool"}


def requirements() -> dict[str, list[Requirement]]:
    """By extra, and under '' those of the core."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    lines = {extra: [line for line in text.splitlines() if line and not line.startswith("#")] for extra, text in texts.items()}
    return {extra: [Requirement(line) for line in found] for extra, found in lines.items()}


def pins(path: pathlib.Path) -> dict[str, Version]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), f"{path} must pin every package"
    assert lines == sorted(lines, key=str.lower)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_are_within_the_ranges_of_the_setup(path):
    exact = pins(path)
    for extra, wanted in requirements().items():
        for each in wanted:
            if canonicalize_name(each.name) != "sage-jax":
                assert each.specifier.contains(exact[canonicalize_name(each.name)]), (extra, str(each))


def test_there_are_constraints_for_each_python():
    assert [path.stem for path in CONSTRAINTS] == ["py311", "py312", "py313"]


def test_extra_all_has_every_library_extra():
    found = requirements()
    (everything,) = found["all"]
    assert everything.extras == found.keys() - {"", "all", "dev", *ACCELERATORS}


# Core: everything but training, with the packages of all extras hidden.
CORE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import sage_jax
from sage_jax.corpus.sources import list_corpus

files = list_corpus("embedded")
assert len(files) == 73 and all("site-packages" in path for _, path in files), files[0]
assert sage_jax.__file__.startswith(sys.prefix), sage_jax.__file__
assert len(sage_jax.read_midi(files[0][1]).notes)
sage_jax.load, sage_jax.preprocess, sage_jax.save_midi, sage_jax.default_config
assert repr(sage_jax.load("sage-20m")).startswith("Model(nested2-mqa")
try:
    sage_jax.train
except sage_jax.UserError as error:
    assert "sage_jax[train]" in str(error), error
else:
    raise AssertionError("sage_jax.train works without its packages")
"""

# The whole way from MIDI files to a continuation.
WHOLE = """
import pathlib

import sage_jax
from ml_collections import ConfigDict
from sage_jax.corpus.sources import EMBEDDED
from sage_jax.tokenizers.note_events import NoteEvents

config = sage_jax.default_config("debug")
config["model"]["num_layers"] = 1
config["train"].update(steps=2, eval_every=2, checkpoint_every=2)
report = sage_jax.preprocess(f"folder:{EMBEDDED / 'piano'}", "run/data", NoteEvents(**config["tokenizer"]), show_progress=False)
assert sage_jax.train(ConfigDict(config), "run")["step"] == 2
model = sage_jax.load("run")
takes = model.continue_(EMBEDDED / "piano" / "solace.mid", bars=1, prompt_bars=1)
for path in takes.save("takes"):
    assert len(sage_jax.read_midi(path).notes), path
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("sage_jax", "third_party/midi"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of a virtual environment that has the wheel, and sees the packages of this one but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    packages = pathlib.Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    # A .pth file adds folders, but does not process the .pth files in them, such as that of an editable install.
    (packages / "these.pth").write_text("\n".join(site.getsitepackages()))
    run(sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index", wheel)
    return python


def run(*command, **options) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_wheel_has_the_licences(wheel):
    names = run(sys.executable, "-m", "zipfile", "-l", wheel)
    for licence in MIDI.joinpath("LICENSES").iterdir():
        assert f"sage_jax/corpus/embedded/LICENSES/{licence.name}" in names
        assert re.search(rf"dist-info/licenses/third_party/midi/LICENSES/{licence.name}", names)
    assert not re.search(r"^(tests|launch|configs|third_party)/", names, re.MULTILINE)


@pytest.mark.process
def test_wheel_has_the_page_of_live_play(wheel):
    names = run(sys.executable, "-m", "zipfile", "-l", wheel)
    for file in (ROOT / "sage_jax" / "live" / "page").iterdir():
        assert f"sage_jax/live/page/{file.name} " in names


@pytest.mark.process
def test_core_of_the_wheel_needs_no_extra(installed, tmp_path):
    # The extra train also names absl-py, which orbax-checkpoint itself requires.
    hidden = "grain apache_beam matplotlib aiohttp midirenderer ml_collections music21 soundfile symusic tensorboardX".split()
    run(installed, "-c", CORE.format(hidden=[*hidden, "tokenizers"]), cwd=tmp_path)


@pytest.mark.process
def test_wheel_trains_and_continues_in_any_folder(installed, tmp_path):
    run(installed, "-c", WHOLE, cwd=tmp_path)
