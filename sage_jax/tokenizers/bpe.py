"""Byte-pair encoding of REMI+: frequent pairs of adjacent tokens are merged into one id."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.music.notes import Piece
from sage_jax.music.quantization_stats import QuantizationStats
from sage_jax.tokenizers.note_events import DEFAULT_GRID, NoteEvents
from sage_jax.tokenizers.remi import BAR, DURATION, EOS, METER_OF, POSITION, PROGRAM, SPECIAL, Remi, latest
from sage_jax.tokenizers.remi_table import TokenTable
from sage_jax.tokenizers.remi_tracks import BarTrackRemi
from sage_jax.tokenizers.remi_windows import HEAD, StreamWindows
from sage_jax.tokenizers.windows import join

if TYPE_CHECKING:
    from tokenizers import Tokenizer as BpeLibrary

WITHIN = ("note", "beat", "bar")
MIN_FREQUENCY = 2  # occurrences of a pair that a merge needs
FIRST_LETTER = 0x4E00  # token t is the letter chr(FIRST_LETTER + t) in the text that the library reads; there are 20,992


@dataclasses.dataclass(frozen=True)
class RemiBpe:
    """A `Tokenizer` whose step is one id [N, 1] for one or more tokens of REMI+.

    The ids of REMI+ come first, then one for each merge. Without merges the steps are the tokens of REMI+.

    grid: the ticks, durations, velocities, tempos and meters, with one track per program.
    merges: pairs of ids, in the order in which they were learned and are applied.
    within: the scope of merges, "note", "beat" or "bar". Merges never cross the boundary of a scope.
        note: a note's Program, Pitch, Velocity and Duration, with its Position if it has one; a Position and its Tempo; a Bar
            and its TimeSig.
        beat: all that begins in one beat (one unit of the meter's denominator), for the first beat with Bar and TimeSig.
        bar: a bar.
    per_track: groups the notes of each bar by program (`BarTrackRemi`); merges never cross programs either.

    The head of a stream (BOS, Bar, TimeSig, Position 0, Tempo) and EOS are never merged. So a head is five steps.
    """

    grid: NoteEvents = DEFAULT_GRID
    merges: tuple[tuple[int, int], ...] = ()
    within: str = "bar"
    per_track: bool = False

    attributes = ("token",)

    def __post_init__(self):
        if self.within not in WITHIN:
            raise UserError(f"within is {self.within!r}; choose {', '.join(WITHIN)}")
        if self.grid.tracks_per_program > 1:
            raise UserError(f"tokenizer.tracks_per_program is {self.grid.tracks_per_program}; remi needs 1")
        for pair in self.merges:
            if len(pair) != 2 or not all(isinstance(each, int) and EOS < each for each in pair):
                raise ValueError(f"a merge is {pair!r}; it must be two ids above the special ones")

    def __getstate__(self) -> dict:
        """The fields without the cached tables, which a worker process makes again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    # Vocabulary

    @functools.cached_property
    def remi(self) -> Remi:
        """The tokenizer of the tokens that ids stand for."""
        return (BarTrackRemi if self.per_track else Remi)(self.grid)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids."""
        return (len(self._lengths),)

    @functools.cached_property
    def _texts(self) -> list[str]:
        """The tokens of each id, as letters. Raises ValueError for a merge of an id that no earlier merge made."""
        texts = [chr(FIRST_LETTER + token) for token in range(self.remi.vocab_size)]
        known = set(texts)
        for left, right in self.merges:
            if max(left, right) >= len(texts):
                raise ValueError(f"merge {left}, {right} has an id that no merge before it made")
            merged = texts[left] + texts[right]
            if merged not in known:  # merges that give the same tokens share an id
                known.add(merged)
                texts.append(merged)
        return texts

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        """The number of tokens of each id, int [V]."""
        return np.array([len(text) for text in self._texts])

    @functools.cached_property
    def _tokens(self) -> np.ndarray:
        """The tokens of all ids in order, int [_lengths.sum()]."""
        return _tokens_of("".join(self._texts))

    @functools.cached_property
    def spans(self) -> TokenTable:
        """The lookup tables of the ids, for the grammar."""
        return TokenTable.of(self.remi, self._tokens, self._lengths)

    @functools.cached_property
    def _notes(self) -> np.ndarray:
        """The number of notes that each id completes, int32 [V]."""
        begins = np.cumsum(self._lengths) - self._lengths
        return np.add.reduceat(self.remi.kinds(self._tokens) == DURATION, begins, dtype=np.int32)

    @functools.cached_property
    def _library(self) -> "BpeLibrary":
        tokenizers, texts = _import_tokenizers(), self._texts
        ids = {text: number for number, text in enumerate(texts)}
        library = tokenizers.Tokenizer(tokenizers.models.BPE(ids, [(texts[left], texts[right]) for left, right in self.merges]))
        library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        return library

    @classmethod
    def learn(
        cls,
        pieces: Iterable[Piece],
        *,
        merges: int,
        grid: NoteEvents = DEFAULT_GRID,
        within: str = "bar",
        per_track: bool = False,
    ) -> "RemiBpe":
        """A tokenizer with `merges` ids added to REMI+, for the most frequent pairs of ids in `pieces`.

        Raises UserError if the pieces have fewer pairs that occur `MIN_FREQUENCY` times.
        """
        unmerged = cls(grid, (), within, per_track)
        if merges < 0:
            raise UserError(f"merges is {merges}; give 0 or more")
        if not merges:
            return unmerged
        trainer = _import_tokenizers().trainers.BpeTrainer(
            vocab_size=unmerged.vocab_sizes[0] + merges,
            min_frequency=MIN_FREQUENCY,
            initial_alphabet=unmerged._texts,
            show_progress=False,
        )
        library = unmerged._library
        streams = (unmerged.remi.encode(unmerged.quantize(piece)) for piece in pieces)
        library.train_from_iterator(map(unmerged._words, streams), trainer)
        ids = {text: number for number, text in enumerate(unmerged._texts)}
        pairs = []
        for left, right in json.loads(library.to_str())["model"]["merges"]:
            pairs.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids))
        found = len(ids) - unmerged.vocab_sizes[0]
        if found < merges:
            raise UserError(f"merges is {merges}, but the pieces give only {found}; use at most {found}")
        return cls(grid, tuple(pairs), within, per_track)

    # Pieces to steps and back

    def quantize(self, piece: Piece, loss: QuantizationStats | None = None, end: int | None = None) -> Piece:
        """As `Remi.quantize`."""
        return self.remi.quantize(piece, loss, end)

    def encode(self, piece: Piece) -> np.ndarray:
        """The steps of a quantized piece, int32 [N, 1]. Raises ValueError for a piece that is not quantized."""
        return self.merge(self.remi.encode(piece))[:, None]

    def decode(self, steps: np.ndarray) -> Piece:
        """The piece that `steps` [N, 1] encode, up to the first EOS; BOS, PAD and an incomplete last note are skipped.

        Raises ValueError for an id that is not in the vocabulary, naming the step, and for an invalid sequence of tokens.
        """
        ids = np.asarray(steps)[:, 0]
        stop = np.flatnonzero(ids == EOS)
        return self.remi.decode(self.expand(ids[: stop[0]] if len(stop) else ids)[0])

    def num_notes(self, steps: np.ndarray) -> np.ndarray:
        """The number of notes that each of `steps` [..., 1] completes, int32 [...]; numpy arrays."""
        return self._notes[np.asarray(steps)[..., 0]]

    def expand(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, offsets) of `ids` [N]: the REMI+ tokens int [T], and the index at which each id begins, then T: int [N + 1].

        Raises ValueError, naming the step, for an id that is not in the vocabulary.
        """
        ids = np.asarray(ids, np.int64)
        unknown = np.flatnonzero((ids < 0) | (ids >= self.vocab_sizes[0]))
        if len(unknown):
            place = int(unknown[0])
            raise ValueError(
                f"step {place} has id {ids[place]}, which is not among the {self.vocab_sizes[0]} of the vocabulary"
            )
        lengths = self._lengths[ids]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        begins = (np.cumsum(self._lengths) - self._lengths)[ids]
        return self._tokens[np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets

    def merge(self, tokens: np.ndarray) -> np.ndarray:
        """The ids int32 [N] of `tokens` [T] of REMI+, which must begin with a complete head."""
        if not self.merges:
            return tokens.astype(np.int32)
        return np.array(self._library.encode(self._words(tokens)).ids, np.int32)

    def _words(self, tokens: np.ndarray) -> str:
        """`tokens` [T] as letters, with a space before each word."""
        letters = np.insert(tokens + FIRST_LETTER, np.flatnonzero(self.word_starts(tokens)), ord(" "))
        return letters.astype("<u4").tobytes().decode("utf-32-le")

    def word_starts(self, tokens: np.ndarray) -> np.ndarray:
        """Which of `tokens` [T], a stream with its head, begin a word, bool [T].

        A word is one scope of merges. Each token of the head and EOS is a word of its own.
        """
        kind = self.remi.kinds(tokens)
        starts = (kind == BAR) | (kind == SPECIAL)
        starts[: HEAD + 1] = True
        if self.within == "note":
            starts |= (kind == POSITION) | ((kind == PROGRAM) & (np.append(SPECIAL, kind[:-1]) != POSITION))
        if self.within == "bar" and not self.per_track:
            return starts
        value = tokens - self.remi.starts[kind]
        if self.within == "beat":
            moments = np.flatnonzero((kind == POSITION) | (kind == BAR))
            meter = latest(np.where(kind == METER_OF, value, -1))[moments]
            units = np.array(self.grid.meters)[:, 1]
            beat = np.where(kind[moments] == BAR, 0, value[moments] * units[meter] // (4 * self.grid.ticks_per_quarter))
            starts[moments[1:]] |= np.diff(beat) != 0
        if isinstance(self.remi, BarTrackRemi):
            moments, track = self.remi.tracks(kind, value)
            starts[moments[1:]] |= np.diff(track) != 0
        return starts

    # Parts of pieces

    def head_length(self, steps: np.ndarray) -> int:
        """The number of steps at the beginning that are not scored: BOS, the bar, the meter and the tempo in force."""
        return HEAD

    def window(self, steps: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """As `Tokenizer.window`."""
        window, bar = self._stream_windows(steps).last(length)
        return window[:, None], bar

    join = staticmethod(join)

    def windows(self, steps: np.ndarray, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """As `Tokenizer.windows`. Raises ValueError for a context that the history of a window would fill."""
        for window, first in self._stream_windows(steps).all(context):
            yield window[:, None], first

    def _stream_windows(self, steps: np.ndarray) -> StreamWindows:
        ids = np.asarray(steps, np.int32)[:, 0]
        return StreamWindows(self.remi, ids, *self.expand(ids), self.merge)

    # Identity

    def to_dict(self) -> dict:
        """The settings and the name of the tokenizer, JSON-ready."""
        merges = [list(pair) for pair in self.merges]
        settings = dict(grid=self.grid.to_dict(), within=self.within, per_track=self.per_track, merges=merges)
        return {"representation": "remi_bpe", **settings}

    @classmethod
    def from_dict(cls, values: dict) -> "RemiBpe":
        """The inverse of `to_dict`. Raises UserError for the settings of another tokenizer, ValueError for invalid merges."""
        if values.get("representation") != "remi_bpe":
            raise UserError(f"the representation is {values.get('representation')!r}, not remi_bpe")
        merges = tuple(tuple(pair) for pair in values["merges"])
        return cls(NoteEvents.from_dict(values["grid"]), merges, values["within"], values["per_track"])

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that defines the meaning of an id."""
        text = json.dumps([self.to_dict(), self.grid.fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the settings and merges to `path` in one step: the file is complete or absent."""
        write_json(pathlib.Path(path), {**self.to_dict(), "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: str | pathlib.Path, grid: NoteEvents = DEFAULT_GRID) -> "RemiBpe":
        """The inverse of `save`. Raises UserError, naming the file, if it is missing, damaged or for another grid."""
        try:
            values = json.loads(pathlib.Path(path).read_text())
            found = cls.from_dict(values)
            intact = values["fingerprint"] == found.fingerprint and bool(found.vocab_sizes)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; learn the merges first") from error
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"{path} holds no readable merges ({error}); learn them again") from error
        if not intact:
            raise UserError(f"{path} was changed since it was written; learn the merges again")
        if found.grid != grid:
            raise UserError(f"{path} was learned on another grid ({found.grid}, not {grid}); learn the merges again")
        return found


def _tokens_of(text: str) -> np.ndarray:
    """The tokens of a text of letters, int [T]."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64) - FIRST_LETTER


def _import_tokenizers() -> ModuleType:
    """The package tokenizers. Raises UserError if it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise UserError("representation.merges needs the package tokenizers: pip install 'sage_jax[bpe]'") from error
    return tokenizers
