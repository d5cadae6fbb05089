"""The evaluation benchmark runs and reports every part."""

from sage_jax.evaluation.benchmark import measure


def test_benchmark_reports_times_and_memory():
    lines = measure(3, 2)
    assert any(line.startswith("NMSI of one pair of 16 bars:") for line in lines)
    assert "peak memory" in lines[-1]
