"""The tokenizer interface that data, models, decoding and evaluation use."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from sage_jax.music.notes import Piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.grid import Grid


class Tokenizer(Protocol):
    """Encodes a piece as `steps`, an int array [N, A]: N steps of A attributes, BOS first and EOS last.

    A step is what a model predicts at one position: a note event of NoteEvents (A = 5), a token of RemiBpe (A = 1), a row of
    Mmt (A = 6). The ids PAD, BOS and EOS are 0, 1 and 2 in attribute 0 of every tokenizer; padding is 0 in all attributes.
    For every piece q that `quantize` returned, decode(encode(q)) == q. A tokenizer is immutable, hashable and picklable.
    """

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the A attributes, in the order in which they are predicted."""
        ...

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids of each attribute, A sizes."""
        ...

    @property
    def grid(self) -> Grid:
        """The ticks, durations, velocities, tempos and meters."""
        ...

    # Pieces to steps and back

    def quantize(self, piece: Piece, loss: QuantizationStats | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the vocabulary can encode; adds the quantization error to `loss`.

        end: tempo and meter changes from this tick on are dropped; None for the end of the last note. Raises ValueError for
        a piece on another grid.
        """
        ...

    def encode(self, piece: Piece, /) -> np.ndarray:
        """The steps of a quantized piece, [N, A]. Raises ValueError for a piece that is not quantized."""
        ...

    def decode(self, steps: np.ndarray, /) -> Piece:
        """The piece that `steps` [N, A] encode, up to the first EOS; PAD is skipped.

        Raises ValueError for an id that is not in the vocabulary or is not allowed at its place.
        """
        ...

    # Parts of pieces

    def num_notes(self, steps: Any, /) -> Any:
        """The number of notes that each of `steps` [..., A] completes, int32 [...].

        Takes numpy arrays and, where A > 1, jax arrays; returns the same kind.
        """
        ...

    def head_length(self, steps: np.ndarray, /) -> int:
        """The number of steps at the beginning of `steps` [N, A] that are given and not scored, BOS included.

        It is the same for every piece; `steps` may be empty.
        """
        ...

    def window(self, steps: np.ndarray, length: int, /) -> tuple[np.ndarray, int]:
        """(window, bar): a head and the last bars of `steps` [N, A], at most `length` steps, and the number of the first bar.

        The head is BOS with the meter and tempo in force, or with the instruments of the piece (Mmt). If all of `steps` fit,
        they are the window and bar is 0. If the last bar alone is too long, the window has its last notes.
        """
        ...

    def join(self, steps: np.ndarray, more: np.ndarray, bar: int, /) -> np.ndarray:
        """`steps` [N, A] followed by `more` [M, A], which continue the window of `steps` from `bar` on: [N + M, A]."""
        ...

    def windows(self, steps: np.ndarray, context: int, /) -> Iterator[tuple[np.ndarray, int]]:
        """(window, first): windows of at most `context` steps that cover `steps` [N, A]; those from `first` on are scored.

        Each step but BOS is scored in one window. The first window begins the piece, with `first` = 1. The others begin with a
        head and spend a half to three quarters of the context on steps before `first`.
        """
        ...

    # Identity

    def to_dict(self) -> dict[str, Any]:
        """The settings, JSON-ready; `config.from_dict` makes the same tokenizer of them."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that defines the meaning of an id."""
        ...
