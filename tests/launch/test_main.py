"""What launch scripts share."""

import pathlib
import re
import subprocess
import sys

import pytest

from launch import _main


def test_a_report_states_its_command_without_the_folders_of_this_machine(monkeypatch):
    typed = ["--config=c.py:cpu", "--workdir", "/mine/w", "--known=/mine/a.json", "--report"]
    typed += ["--config.corpora.piano=folder:/mine/p", "--config.corpora.multitrack", "shards:/mine/m"]
    monkeypatch.setattr(sys, "argv", ["prog", *typed])
    typed = _main.as_typed("launch.study", {"workdir": "DIR", "known": "FILE"}, left_out=("report",))
    flags = "--config=c.py:cpu --workdir DIR --known=FILE --config.corpora.piano=folder:DIR"
    flags += " --config.corpora.multitrack shards:DIR"
    assert typed == f"python -m launch.study {flags}"


DEBUG = ["--config=configs/sage.py:debug"]
BOTH = [*DEBUG, "--config.train.steps=3", "--config.data.steps=3"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*DEBUG, "--config.train.batchsize=8"], "--config.train.batchsize=8 sets a field .*; did you mean batch_size?"),
        ([*DEBUG, "--noconfig.train.tensorbord"], "--noconfig.train.tensorbord sets .*; did you mean tensorboard?"),
        ([*DEBUG, "--config.mesh.zzz", "3"], "--config.mesh.zzz sets .*; known are data, fsdp, tensor"),
        (["--config.mesh.zzz=3"], "--config.mesh.zzz=3 sets .*; known are data, fsdp, tensor"),
        ([*DEBUG, "--config.trian.steps=3"], "--config.trian.steps=3 sets .*; did you mean train?"),
        (BOTH, "--config.data.steps=3 sets .*"),
        ([*DEBUG, "--config.data.transpose[0]=-3"], r"--config.data.transpose\[0\]=-3 sets .*; did you mean transpose?"),
        ([*DEBUG, "--config.train.steps.x=3"], "--config.train.steps.x=3: train.steps is a field .*"),
    ],
)
def test_an_override_of_an_unknown_field_ends_in_one_line_that_names_the_flag(arguments, line, capsys):
    with pytest.raises(SystemExit) as ended:
        _main._check_overrides(_main._chosen_config(arguments) or "configs/sage.py", arguments)
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.match(rf"error: {line}".replace("?", r"\?"), printed), printed
    assert printed.count("\n") == 1 and "\\n" not in printed


def preprocess(*arguments: str) -> subprocess.CompletedProcess:
    """launch.preprocess as a process that these arguments keep from its work."""
    command = [sys.executable, "-m", "launch.preprocess", "--workdir=/nowhere", *arguments]
    return subprocess.run(command, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, timeout=120)


@pytest.mark.process
def test_a_config_file_that_is_missing_ends_in_one_line():
    ended = preprocess("--config=configs/nowhere.py")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: --config: ") and "configs/nowhere.py" in ended.stderr


@pytest.mark.process
@pytest.mark.parametrize("broken", ["{}['x']", "ConfigDict(dict(a=1)).b"])
def test_an_error_of_the_config_file_itself_is_not_blamed_on_a_flag(broken, tmp_path):
    """Its line is in the traceback."""
    file = tmp_path / "mine.py"
    file.write_text(f"from ml_collections import ConfigDict\n\ndef get_config():\n    return {broken}\n")
    ended = preprocess(f"--config={file}")
    assert ended.returncode == 1 and f'File "{file}", line 4' in ended.stderr
    assert "a field that the config doesn't have" not in ended.stderr
