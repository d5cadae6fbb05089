"""The scripts as processes: help, and mistakes in one line."""

import pytest

from tests.launch.commands import outcomes

pytestmark = pytest.mark.process
DEBUG = "--config=configs/sage.py:debug"
# An error of the config file itself.
BROKEN = ("{}['x']", "ConfigDict(dict(a=1)).b")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The config files of BROKEN."""
    folder = tmp_path_factory.mktemp("configs")
    files = [folder / f"mine{number}.py" for number in range(len(BROKEN))]
    for file, broken in zip(files, BROKEN, strict=True):
        file.write_text(f"from ml_collections import ConfigDict\n\ndef get_config():\n    return {broken}\n")
    return files


@pytest.fixture(scope="module")
def ended(files):
    """How each program of this module ended, by name."""
    commands = {
        "help of train": ("launch.train", "--help"),
        "help of sample": ("launch.sample", "--help"),
        "misspelt": ("launch.train", DEBUG, "--workdir=nowhere", "--config.model.size=3"),
        "missing file": ("launch.preprocess", "--workdir=/nowhere", "--config=configs/nowhere.py"),
        **{file: ("launch.preprocess", "--workdir=/nowhere", f"--config={file}") for file in files},
        "argument": ("launch.train", "--config=configs/sage.py:huge", "--workdir=nowhere"),
        "field": ("launch.train", DEBUG, "--config.train.stepz=3", "--workdir=nowhere"),
        "no folders": ("launch.evaluate", "--config=configs/evaluation.py"),
        "flag": ("launch.train", DEBUG, "--workdri=nowhere"),
        "value": ("launch.train", DEBUG, "--config.train.steps=0", "--workdir=nowhere"),
    }
    return outcomes(commands)


@pytest.mark.parametrize("script", ["train", "sample"])
def test_help_is_no_mistake(script, ended):
    found = ended[f"help of {script}"]
    assert found.returncode == 0 and "--workdir" in found.stdout and "--config" in found.stdout


def test_a_misspelt_field_takes_one_line(ended):
    wrong = ended["misspelt"]
    assert wrong.returncode == 2
    (line,) = wrong.stderr.strip().splitlines()
    reason = "sets a field that the config doesn't have; known are architecture, attention_impl, "
    assert line.startswith(f"error: --config.model.size=3 {reason}")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("argument", "choose one of debug, demo, base"),
        ("field", "stepz"),
        ("value", "config.train.steps is 0"),
        ("no folders", "error: --workdir and --output must be given; see --help"),
        ("flag", "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
    ],
)
def test_a_mistake_on_the_command_line_is_reported_in_one_line(mistake, message, ended):
    wrong = ended[mistake]
    assert wrong.returncode == 2
    assert message in wrong.stderr and len(wrong.stderr.strip().splitlines()) == 1, wrong.stderr


def test_a_config_file_that_is_missing_ends_in_one_line(ended):
    wrong = ended["missing file"]
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("error: --config: ") and "configs/nowhere.py" in wrong.stderr


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_an_error_of_the_config_file_itself_is_not_blamed_on_a_flag(number, files, ended):
    """Its line is in the traceback."""
    wrong = ended[files[number]]
    assert wrong.returncode == 1 and f'File "{files[number]}", line 4' in wrong.stderr
    assert "a field that the config doesn't have" not in wrong.stderr
