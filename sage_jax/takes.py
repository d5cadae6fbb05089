"""What a model is asked for and what it gives: settings of takes, prompts, takes and scores."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sage_jax.decoding.continuation import Continuations
from sage_jax.errors import UserError
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, Piece

ANY, TRAINED = "any", "trained"


@dataclasses.dataclass(frozen=True)
class ContinuationConfig:
    """How many takes of what length. Raises UserError naming the field.

    num_samples: takes, decoded as one batch. prompt_bars: bars of the prompt that the model reads, from its first note on.
    num_bars: new bars. max_events: the most events of a take. seed: the same seed gives the same takes. qpm (quarters per
    minute), meter: tempo and time signature of a take without a prompt. pitches: "any", or "trained" for those that each
    instrument has in the training split or in the prompt; published weights over NoteEvents know them, and others take any.
    """

    num_samples: int = 4
    prompt_bars: int = 4
    num_bars: int = 8
    max_events: int = 1024
    seed: int = 0
    qpm: float = DEFAULT_QPM
    meter: tuple[int, int] = DEFAULT_METER
    pitches: str = TRAINED

    def __post_init__(self):
        object.__setattr__(self, "meter", tuple(self.meter))
        for field, low in (("num_samples", 1), ("prompt_bars", 1), ("num_bars", 1), ("max_events", 1), ("seed", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or not low <= value < 2**31:
                raise UserError(f"continuation.{field} is {value!r}; give a whole number of at least {low}")
        if self.pitches not in (TRAINED, ANY):
            raise UserError(f"continuation.pitches is {self.pitches!r}; choose {TRAINED} or {ANY}")
        if not 4 <= self.qpm <= 1000:
            raise UserError(f"continuation.qpm is {self.qpm!r}; give quarters per minute from 4 to 1000")
        if len(self.meter) != 2 or not 1 <= self.meter[0] <= 16 or self.meter[1] not in (1, 2, 4, 8, 16):
            raise UserError(f"continuation.meter is {self.meter!r}; give a time signature like (3, 4)")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt as a model reads it. `Model.read_prompt` makes it.

    read: its bars as they stand in the file. quantized: the same in the model's vocabulary. bars: how many bars the latter
    fills; the vocabulary may split a bar of the file into several. changed: what the vocabulary changed, one line for each
    kind, beginning "file: " or "prompt: ".
    """

    name: str
    read: Piece
    quantized: Piece
    bars: int
    changed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Takes(Sequence[Piece]):
    """Several continuations of one prompt, each with the prompt before it; a sequence of Piece.

    prompt: what the model read, at the tempos of the file; of a rewritten piece, the piece as it was.
    changed: as in Prompt. continuations: lengths and times.
    """

    pieces: tuple[Piece, ...]
    prompt: Piece
    changed: tuple[str, ...]
    continuations: Continuations

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index):
        return self.pieces[index]

    def __iter__(self) -> Iterator[Piece]:
        return iter(self.pieces)

    def save(self, folder: str | os.PathLike) -> list[pathlib.Path]:
        """Writes take_1.mid, take_2.mid, ... to `folder` and returns their paths. Raises UserError where it can't."""
        paths = [pathlib.Path(folder) / f"take_{number}.mid" for number in range(1, len(self) + 1)]
        for piece, path in zip(self.pieces, paths, strict=True):
            save_midi(piece, path)
        return paths


@dataclasses.dataclass(frozen=True)
class Score:
    """The likelihood of a piece: bits per note and per second of music, and the bits per note of each attribute's tokens.

    Every token of the piece counts, its meters, tempos and end among them (evaluation/likelihood.py).
    """

    bits_per_note: float
    bits_per_second: float
    notes: int
    seconds: float
    attributes: Mapping[str, float]


def at_true_tempos(take: Piece, prompt: Prompt, prompt_end: int) -> Piece:
    """`take` with the file's tempos instead of the quantized ones up to the tick `prompt_end`, at which its prompt ends.

    The tempo in force at the end of the prompt stays the file's; later changes are the model's.
    """
    tempos = take.tempos[take.tempos["tick"] >= max(prompt_end, 1)].copy()
    tempos["qpm"][tempos["qpm"] == prompt.quantized.tempos["qpm"][-1]] = prompt.read.tempos["qpm"][-1]
    tempos = np.concatenate([prompt.read.tempos, tempos])
    return dataclasses.replace(take, tempos=tempos[np.append(True, np.diff(tempos["qpm"]) != 0)])
