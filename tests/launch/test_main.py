"""What launch scripts share."""

import re
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
