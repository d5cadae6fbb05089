"""The preprocessing benchmark runs and prints its table."""

import pytest

from launch.benchmark_preprocess import main


@pytest.mark.process
def test_prints_a_table(capsys):
    assert main(["--limit=2", "--rounds=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("2 files of embedded") and sum(line.startswith("| ") for line in lines) == 10
    assert main(["--corpus=folder:/nowhere"]) == 2
