"""A growing array has the rows of a list to which the same was done."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sage_jax.growing_array import FIRST_ROWS, GrowingArray

ROW = np.dtype([("tick", "i4"), ("at", "f8")])


@given(st.lists(st.tuples(st.sampled_from(["append", "extend", "truncate"]), st.integers(0, 3 * FIRST_ROWS)), max_size=12))
def test_it_is_a_list_of_rows(steps):
    array, rows = GrowingArray(ROW), []
    for name, number in steps:
        new = [(number + each, each / 2) for each in range(number)]
        if name == "append":
            array.append((number, 0.5))
            rows.append((number, 0.5))
        elif name == "extend":
            array.extend(np.array(new, ROW))
            rows += new
        else:
            array.truncate(min(number, len(rows)))
            del rows[number:]
        assert len(array) == len(rows) and array.rows.tolist() == rows


def test_a_copy_and_rows_that_were_read_go_on_by_themselves():
    array = GrowingArray(np.int16, (5,))
    array.extend(np.arange(5 * FIRST_ROWS).reshape(-1, 5))
    rows, before, copy = array.rows, array.rows.copy(), array.copy()
    array.append([1, 2, 3, 4, 5])  # moves to a larger buffer
    array.rows[0] = 0
    assert np.array_equal(rows, before) and np.array_equal(copy.rows, before) and len(array) == FIRST_ROWS + 1
