"""What launch scripts share."""

import sys

from launch._main import as_typed


def test_a_report_tells_its_command_without_the_folders_of_this_machine(monkeypatch):
    typed = ["--config=c.py:cpu", "--workdir", "/mine/w", "--known=/mine/a.json", "--report"]
    typed += ["--config.corpora.piano=folder:/mine/p", "--config.corpora.multitrack", "shards:/mine/m"]
    monkeypatch.setattr(sys, "argv", ["prog", *typed])
    told = as_typed("launch.study", {"workdir": "DIR", "known": "FILE"}, left_out=("report",))
    flags = "--config=c.py:cpu --workdir DIR --known=FILE --config.corpora.piano=folder:DIR --config.corpora.multitrack shards:DIR"
    assert told == f"python -m launch.study {flags}"
