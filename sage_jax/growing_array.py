"""GrowingArray: rows of a NumPy array to which more are added, one by one, as to a list."""

from typing import Any

import numpy as np

FIRST_ROWS = 64


class GrowingArray:
    """Rows [N, *shape] of a dtype. Adding one takes a constant time on average, and no more memory than up to twice its bytes.

    One thread writes. Others may read `rows` meanwhile: what they get stays valid, and has the rows of some moment.
    """

    def __init__(self, dtype: Any, shape: tuple[int, ...] = ()):
        self._buffer, self._length = np.zeros((FIRST_ROWS, *shape), dtype), 0

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        """The rows so far, a view: a row that is dropped or changed later is so here, too. Copy what is kept."""
        return self._buffer[: self._length]

    def append(self, row: Any) -> None:
        """Adds a row."""
        self._reserve(self._length + 1)
        self._buffer[self._length] = row
        self._length += 1

    def extend(self, rows: np.ndarray) -> None:
        """Adds rows [n, *shape]."""
        end = self._length + len(rows)
        self._reserve(end)
        self._buffer[self._length : end] = rows
        self._length = end

    def truncate(self, length: int) -> None:
        """Keeps the first `length` rows."""
        assert 0 <= length <= self._length
        self._length = length

    def copy(self) -> "GrowingArray":
        """The same rows, to go on by itself."""
        other = GrowingArray(self._buffer.dtype, self._buffer.shape[1:])
        other.extend(self.rows)
        return other

    def _reserve(self, length: int) -> None:
        if length > len(self._buffer):
            larger = np.zeros((max(length, 2 * len(self._buffer)), *self._buffer.shape[1:]), self._buffer.dtype)
            larger[: self._length] = self.rows
            self._buffer = larger
