"""What preprocessing knows of every file of a corpus, in columns."""

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sage_jax.music.loss import GridLoss
from sage_jax.music.sketch import SKETCH_LENGTH

LOSSES = tuple(field.name for field in dataclasses.fields(GridLoss))
TIMES = ("seconds", "parse_seconds")
NUMBERS = {"shard": "i4", "start": "i8", "length": "i4", "notes": "i4", "bars": "i4"}
TEXTS = {"hash": "S16", "digest": "S16", "sketch": f"S{SKETCH_LENGTH}"}
UNKNOWN = -1  # instead of the number of a shard


class Records:
    """The newest record of each file, by the place of its name in `names`, which are sorted.

    columns: an array by field [P], and `loss` [P, fields of GridLoss]: 488 bytes to a file. dropped: by place, the reason and
    the message of each file that can't be used, which is all of a record that is kept as Python objects.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        kinds = {**NUMBERS, **TEXTS, **dict.fromkeys(TIMES, "f8")}
        self.columns = {field: np.zeros(len(names), kind) for field, kind in kinds.items()}
        self.columns["shard"][:] = UNKNOWN
        self.loss = np.zeros((len(names), len(LOSSES)))
        self.dropped: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, field: str) -> np.ndarray:
        return self.columns[field]

    def take_all(self, records: Iterable[dict[str, Any]], stamps: np.ndarray) -> "Records":
        """Takes the records of files that are in the corpus and still have their stamp [P]; later ones replace earlier ones."""
        for record in records:
            place = bisect.bisect_left(self.names, record["name"])
            if place < len(self) and self.names[place] == record["name"] and stamps[place] == record["stamp"].encode():
                self._take(place, record)
        return self

    def _take(self, place: int, record: dict[str, Any]) -> None:
        self.dropped.pop(place, None)
        self["shard"][place], self["length"][place] = record["shard"], 0
        if "reason" in record:
            self.dropped[place] = (record["reason"], record["message"])
            return
        for field in (*NUMBERS, *TEXTS, *TIMES):
            self[field][place] = record[field]
        self.loss[place] = [record["loss"][field] for field in LOSSES]

    def unknown(self) -> np.ndarray:
        """The places of files without a record."""
        return np.flatnonzero(self["shard"] == UNKNOWN)

    def readable(self) -> np.ndarray:
        """The places of files that could be read."""
        return np.flatnonzero(self["length"] > 0)

    def summed_loss(self) -> GridLoss:
        """What the grid lost in all files, summed in the order of their names."""
        loss = self.loss[self.readable()]
        ends = loss.max(axis=0, initial=0.0)
        values = {}
        for column, field in enumerate(dataclasses.fields(GridLoss)):
            value = ends[column] if field.name.endswith("_max") else loss[:, column].sum()
            values[field.name] = field.type(value)
        return GridLoss(**values)
