"""The ways to tell a piece to a model, by name: NoteEvents, REMI+ with or without byte-pair encoding, MMT's rows."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.bpe import WITHIN, RemiBpe
from sage_jax.music.events import NoteEvents
from sage_jax.music.mmt import Mmt
from sage_jax.music.notes import Piece

Representation = NoteEvents | RemiBpe | Mmt
NAMES = ("events", "remi", "mmt")
MERGES_FILE = "bpe.json"

# The steps that a crop has room for, for each of its events. A note of REMI+ is four tokens and now and then a position or a bar.
STEPS_PER_EVENT = {"events": 1.0, "remi": 5.0, "mmt": 1.0}


@dataclasses.dataclass(frozen=True)
class RepresentationConfig:
    """Which representation, and what it has of its own. Raises UserError naming the field.

    name: "events" for NoteEvents, "remi" for REMI+, "mmt" for the Multitrack Music Transformer's rows.
    merges, within, per_track: of remi, the number of ids that byte-pair encoding adds, the word that they stay in, and whether
      each bar is told track after track. max_beats: of mmt.
    steps_per_event: room for the steps of a crop, for each of its events; 0 for STEPS_PER_EVENT. What has no room is cut off a
      crop to train on; of what is validated nothing is.
    """

    name: str = "events"
    merges: int = 0
    within: str = "bar"
    per_track: bool = False
    max_beats: int = 256
    steps_per_event: float = 0.0

    def __post_init__(self):
        for field, known in (("name", NAMES), ("within", WITHIN)):
            if getattr(self, field) not in known:
                raise UserError(f"representation.{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}")
        if not isinstance(self.merges, int) or not 0 <= self.merges <= 20_000:
            raise UserError(f"representation.merges is {self.merges!r}; give a whole number from 0 to 20000")
        if self.merges and self.name != "remi":
            raise UserError(f"representation.merges is {self.merges}, but only remi is merged; give 0")
        if not 0 <= self.steps_per_event <= 16:
            raise UserError(f"representation.steps_per_event is {self.steps_per_event}; give 0 or up to 16")

    def vocab_sizes(self, grid: NoteEvents) -> tuple[int, ...]:
        """The number of ids in each attribute's block."""
        unlearned = dataclasses.replace(self, merges=0).make(grid).vocab_sizes
        return (unlearned[0] + self.merges,) if self.merges else unlearned

    def steps(self, events: int) -> int:
        """The room in steps for as many events."""
        return round(events * (self.steps_per_event or STEPS_PER_EVENT[self.name]))

    def make(self, grid: NoteEvents) -> Representation:
        """The representation, where there is nothing to learn. Raises ValueError where there is."""
        if self.merges:
            raise ValueError("merges are to be learned")
        if self.name == "mmt":
            return Mmt(grid, self.max_beats)
        return RemiBpe(grid, (), self.within, self.per_track) if self.name == "remi" else grid

    def learn(self, grid: NoteEvents, pieces: Iterable[Piece], folder: pathlib.Path) -> Representation:
        """The representation, with merges of `pieces` that are kept in `folder` and learned only where they are not there yet.

        Raises UserError for more merges than the pieces have, and for a file of others.
        """
        if not self.merges:
            return self.make(grid)
        path = folder / MERGES_FILE
        if not path.exists():
            learned = RemiBpe.learn(pieces, merges=self.merges, grid=grid, within=self.within, per_track=self.per_track)
            learned.save(path)
        found = RemiBpe.load(path, grid)
        if (found.vocab_sizes, found.within, found.per_track) != (self.vocab_sizes(grid), self.within, self.per_track):
            raise UserError(f"{path} holds merges of other settings; delete it, or choose another --workdir")
        return found


def retold(events: np.ndarray, grid: NoteEvents, representation: Representation) -> np.ndarray:
    """The piece that `events` [N, A] of `grid` tell, in steps of `representation`."""
    if representation == grid:
        return events
    return representation.encode(representation.quantize(grid.decode(events)))


def from_dict(values: dict[str, Any]) -> Representation:
    """The representation that `to_dict` told of. Raises UserError for one that is not known."""
    kinds = {"remi_bpe": RemiBpe, "mmt": Mmt}
    return kinds.get(values.get("representation"), NoteEvents).from_dict(values)
