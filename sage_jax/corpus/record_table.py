"""The preprocessing records of all files of a corpus, stored in columns."""

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sage_jax.corpus.near_duplicates import MINHASH_LENGTH
from sage_jax.music.quantization_stats import QuantizationStats

STATS_FIELDS = tuple(field.name for field in dataclasses.fields(QuantizationStats))
TIMES = ("seconds", "parse_seconds")
NUMBERS = {"shard": "i4", "start": "i8", "length": "i4", "notes": "i4", "bars": "i4"}
TEXTS = {"hash": "S16", "digest": "S16", "sketch": f"S{MINHASH_LENGTH}"}
NO_SHARD = -1  # shard number of files without a record


class RecordTable:
    """The newest record of each file. Row i is the file names[i]; `names` is sorted.

    columns: field -> array [P]. loss: float64 [P, fields of QuantizationStats]. Both together take about 500 bytes per file.
    dropped: row -> (reason, message) of each unusable file. Only these are Python objects.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        kinds = {**NUMBERS, **TEXTS, **dict.fromkeys(TIMES, "f8")}
        self.columns = {field: np.zeros(len(names), kind) for field, kind in kinds.items()}
        self.columns["shard"][:] = NO_SHARD
        self.loss = np.zeros((len(names), len(STATS_FIELDS)))
        self.dropped: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, field: str) -> np.ndarray:
        return self.columns[field]

    def update(self, records: Iterable[dict[str, Any]], stamps: np.ndarray) -> "RecordTable":
        """Stores records and returns self. Later records replace earlier ones.

        Ignores records of files outside `names` and of files whose stamp differs from stamps [P].
        """
        for record in records:
            row = bisect.bisect_left(self.names, record["name"])
            if row < len(self) and self.names[row] == record["name"] and stamps[row] == record["stamp"].encode():
                self._set(row, record)
        return self

    def _set(self, row: int, record: dict[str, Any]) -> None:
        self.dropped.pop(row, None)
        self["shard"][row], self["length"][row] = record["shard"], 0
        if "reason" in record:
            self.dropped[row] = (record["reason"], record["message"])
            return
        for field in (*NUMBERS, *TEXTS, *TIMES):
            self[field][row] = record[field]
        self.loss[row] = [record["loss"][field] for field in STATS_FIELDS]

    def missing(self) -> np.ndarray:
        """The rows of files without a record."""
        return np.flatnonzero(self["shard"] == NO_SHARD)

    def readable(self) -> np.ndarray:
        """The rows of files that could be read."""
        return np.flatnonzero(self["length"] > 0)

    def total_stats(self) -> QuantizationStats:
        """The quantization statistics of all files, summed in the order of their names."""
        loss = self.loss[self.readable()]
        maxima = loss.max(axis=0, initial=0.0)
        values = {}
        for column, field in enumerate(dataclasses.fields(QuantizationStats)):
            value = maxima[column] if field.name.endswith("_max") else loss[:, column].sum()
            values[field.name] = type(field.default)(value)
        return QuantizationStats(**values)
