"""Tests for gaps.py."""

import numpy as np

from sage_jax.benchmark import gaps
from sage_jax.benchmark.gaps import SYSTEMS, Gaps, measure
from tests.decoding.small import CAPACITY, FLAT, WILD, engine_of


def test_each_system_plays_beside_rows_that_join(monkeypatch):
    monkeypatch.setattr(gaps, "MIN_P99", 10)
    engine, said = engine_of(3, CAPACITY, **FLAT), []
    lines = measure(engine, int(0.4 * engine.limit), WILD, 200, 2, said.append).splitlines()
    rows = {cells[1]: cells[2:-1] for cells in ([cell.strip() for cell in line.split("|")] for line in lines[2:])}
    assert list(rows) == list(SYSTEMS) and len(said) == 2 * len(SYSTEMS)
    for cells in rows.values():
        step, moves, joins, plain, *_ = (float(cell.replace(",", "")) for cell in cells)
        beside = int(cells[7])
        assert step > 0 and moves >= 4 and joins == 6 and plain + beside == 2 * 199  # each event after the first has a gap
        assert all(float(cell) > 0 for cell in (*cells[4:7], *cells[8:]))


def test_gaps_are_in_steps_and_a_p99_needs_many():
    few = Gaps(plain=[0.002] * 3, beside=[0.002, 0.004, 0.006], moves=2, joins=1)
    assert few.cells() == ["2.00", "2", "1", "3", "1.00", "-", "1.00", "3", "2.00", "-", "3.00"]
    many = Gaps(plain=[0.002] * 1000, beside=[*np.full(999, 0.002), 0.008])
    assert many.cells()[5] == "1.00" and many.cells()[-1] == "4.00"
