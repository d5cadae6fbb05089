"""The tokenizer of a run, by name: NoteEvents, REMI+ with or without byte-pair encoding, or MMT's rows."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sage_jax.errors import UserError
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.bpe import WITHIN, RemiBpe
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents

NAMES = ("events", "remi", "mmt", "roles")
MERGES_FILE = "bpe.json"

# Steps per event of NoteEvents, for the capacity of a crop. A REMI+ note is four tokens, plus now and then a Position or a Bar.
STEPS_PER_EVENT = {"events": 1.0, "remi": 5.0, "mmt": 1.0, "roles": 1.0}


@dataclasses.dataclass(frozen=True)
class RepresentationConfig:
    """The settings of a tokenizer. Raises UserError, naming the field, for a setting that is out of range.

    Methods take the grid of the shards. Only events and roles keep the tracks of a program apart where the grid does.

    name: "events" for NoteEvents, "remi" for REMI+, "mmt" for the rows of the Multitrack Music Transformer, "roles" for
      RoleEvents, whose models accompany and infill as well.
    merges: for remi, the number of ids that byte-pair encoding adds.
    merge_scope: for remi, "note", "beat" or "bar"; merges never cross its boundary (`RemiBpe.within`).
    per_track: for remi, whether the notes of each bar are grouped by track.
    max_beats: for mmt, the number of beats that the vocabulary has.
    steps_per_event: the capacity of a crop in steps, per event of NoteEvents; 0 for STEPS_PER_EVENT. In training, steps beyond
      the capacity are cut off; in validation none are.
    """

    name: str = "events"
    merges: int = 0
    merge_scope: str = "bar"
    per_track: bool = False
    max_beats: int = 256
    steps_per_event: float = 0.0

    def __post_init__(self):
        for field, known in (("name", NAMES), ("merge_scope", WITHIN)):
            if getattr(self, field) not in known:
                raise UserError(f"representation.{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}")
        if not isinstance(self.merges, int) or not 0 <= self.merges <= 20_000:
            raise UserError(f"representation.merges is {self.merges!r}; give a whole number from 0 to 20000")
        if self.merges and self.name != "remi":
            raise UserError(f"representation.merges is {self.merges}, but only remi is merged; give 0")
        if not 0 <= self.steps_per_event <= 16:
            raise UserError(f"representation.steps_per_event is {self.steps_per_event}; give 0 or up to 16")

    def vocab_sizes(self, grid: NoteEvents) -> tuple[int, ...]:
        """The number of ids of each attribute."""
        unmerged = dataclasses.replace(self, merges=0).make(grid).vocab_sizes
        return (unmerged[0] + self.merges,) if self.merges else unmerged

    def model_fields(self, grid: NoteEvents) -> dict[str, Any]:
        """The fields of ModelConfig that follow from the tokenizer."""
        tracks = grid.tracks_per_program if self.name in ("events", "roles") else 1
        return dict(vocab_sizes=self.vocab_sizes(grid), tracks_per_program=tracks, roles=self.name == "roles")

    def steps(self, events: int) -> int:
        """The capacity, in steps, of a crop of `events` events of NoteEvents."""
        return round(events * (self.steps_per_event or STEPS_PER_EVENT[self.name]))

    def make(self, grid: NoteEvents) -> Tokenizer:
        """The tokenizer without merges. Raises ValueError if the config has merges, which `learn` learns."""
        if self.merges:
            raise ValueError("merges must be learned; call learn")
        if self.name == "mmt":
            return Mmt(_merged(grid), self.max_beats)
        if self.name == "roles":
            return RoleEvents.of(grid)
        return RemiBpe(_merged(grid), (), self.merge_scope, self.per_track) if self.name == "remi" else grid

    def learn(self, grid: NoteEvents, pieces: Iterable[Piece], folder: pathlib.Path) -> Tokenizer:
        """The tokenizer. Merges are read from MERGES_FILE in `folder`; if it is absent, they are learned from `pieces`.

        Raises UserError for more merges than the pieces have, and for a file of other settings.
        """
        if not self.merges:
            return self.make(grid)
        grid, path = _merged(grid), folder / MERGES_FILE
        if not path.exists():
            learned = RemiBpe.learn(pieces, merges=self.merges, grid=grid, within=self.merge_scope, per_track=self.per_track)
            learned.save(path)
        loaded = RemiBpe.load(path, grid)
        if (loaded.vocab_sizes, loaded.within, loaded.per_track) != (self.vocab_sizes(grid), self.merge_scope, self.per_track):
            raise UserError(f"{path} holds merges of other settings; delete it, or choose another --workdir")
        return loaded


def _merged(grid: NoteEvents) -> NoteEvents:
    """`grid` with one track per program."""
    return dataclasses.replace(grid, tracks_per_program=1)


def retokenize(events: np.ndarray, grid: NoteEvents, tokenizer: Tokenizer) -> np.ndarray:
    """The piece that `events` [N, 5] of `grid` encode, as steps [M, A] of `tokenizer`."""
    if tokenizer == grid:
        return events
    return tokenizer.encode(tokenizer.quantize(grid.decode(events)))


def from_dict(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `to_dict` gave `values`. Raises UserError for an unknown one."""
    classes = {"remi_bpe": RemiBpe, "mmt": Mmt, "roles": RoleEvents}
    return classes.get(values.get("representation", ""), NoteEvents).from_dict(values)


def as_saved(saved: dict[str, Any], origin: Any) -> Tokenizer:
    """The tokenizer of a trained model: its settings, with their 'fingerprint'; `origin` is named in messages.

    Raises UserError if this version gives its ids other meanings.
    """
    settings = {name: value for name, value in saved.items() if name != "fingerprint"}
    tokenizer = from_dict(settings)
    if tokenizer.fingerprint != saved["fingerprint"]:
        raise UserError(
            f"{origin} was trained with another vocabulary than that of this version of sage_jax; "
            "train again in another --workdir, or use the version that trained it"
        )
    return tokenizer
