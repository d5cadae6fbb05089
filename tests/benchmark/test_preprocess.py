"""The benchmark of preprocessing runs, so that it can't rot."""

from sage_jax.benchmark.preprocess import main


def test_it_prints_a_table(capsys):
    assert main(["--limit=2", "--rounds=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("2 files of embedded") and sum(line.startswith("| ") for line in lines) == 10
    assert main(["--corpus=folder:/nowhere"]) == 2
