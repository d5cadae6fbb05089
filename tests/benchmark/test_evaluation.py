"""The benchmark of the evaluation runs."""

from sage_jax.benchmark.evaluation import measure


def test_it_runs():
    lines = measure(3, 2)
    assert any(line.startswith("NMSI of one pair of 16 bars alone") for line in lines)
    assert "peak memory" in lines[-1]
