"""Byte-pair encoding of REMI+: tokens that often stand side by side become one, as the field does it on text."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from sage_jax.errors import UserError
from sage_jax.files import write_json
from sage_jax.music.events import NoteEvents
from sage_jax.music.excerpts import HEAD, Excerpts
from sage_jax.music.loss import GridLoss
from sage_jax.music.notes import Piece
from sage_jax.music.remi import BAR, DURATION, EOS, METER_OF, POSITION, PROGRAM, SPECIAL, Remi, latest
from sage_jax.music.spans import Spans
from sage_jax.music.tracks import TrackRemi
from sage_jax.music.windows import join

WITHIN = ("note", "beat", "bar")
LEAST_COUNT = 2  # how often a pair must stand in the pieces to be merged
CHARACTER = 0x4E00  # the first of 20,992 letters, which stand for the tokens in what the library reads as text


@dataclasses.dataclass(frozen=True)
class RemiBpe:
    """A representation: a piece is an int32 array [N, 1] of ids, each of which stands for one or more tokens of REMI+.

    The ids of REMI+ come first, then one for each merge. Without merges this is REMI+ itself.

    grid: the tables of ticks, durations, velocities, tempos and meters.
    merges: pairs of ids, in the order in which they were learned and are applied.
    within: the word, across whose ends nothing is merged.
        note: a note's Program, Pitch, Velocity and Duration, with the Position before it where it has one; a Position and its
            Tempo; a Bar and its TimeSig.
        beat: what begins in one beat, that is one unit of the meter's denominator; the first one has Bar and TimeSig too.
        bar: a bar.
    per_track: whether each bar is told track after track (`TrackRemi`); then words end with a track too.

    The head of a stream (BOS, Bar, TimeSig, Position 0, Tempo) and EOS are no part of any word: whatever the merges, a head is
    five steps, and a first bar's first word begins behind it.
    """

    grid: NoteEvents = NoteEvents()
    merges: tuple[tuple[int, int], ...] = ()
    within: str = "bar"
    per_track: bool = False

    attributes = ("token",)

    def __post_init__(self):
        if self.within not in WITHIN:
            raise UserError(f"within is {self.within!r}; choose {', '.join(WITHIN)}")
        for pair in self.merges:
            if len(pair) != 2 or not all(isinstance(each, int) and EOS < each for each in pair):
                raise ValueError(f"a merge is {pair!r}; it must be two ids behind the special ones")

    def __getstate__(self) -> dict:
        """The fields alone: a worker process makes its own tables."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    # Vocabulary

    @functools.cached_property
    def remi(self) -> Remi:
        return (TrackRemi if self.per_track else Remi)(self.grid)

    @functools.cached_property
    def vocab_sizes(self) -> tuple[int, ...]:
        return (len(self._lengths),)

    @functools.cached_property
    def _texts(self) -> list[str]:
        """Of each id the tokens that it stands for, as letters. Raises ValueError for a merge of what is not there yet."""
        texts = [chr(CHARACTER + token) for token in range(self.remi.vocab_size)]
        known = set(texts)
        for left, right in self.merges:
            if max(left, right) >= len(texts):
                raise ValueError(f"merge {left}, {right} has an id that no merge before it made")
            merged = texts[left] + texts[right]
            if merged not in known:  # two ways to the same tokens share an id
                known.add(merged)
                texts.append(merged)
        return texts

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([len(text) for text in self._texts])

    @functools.cached_property
    def _tokens(self) -> np.ndarray:
        """The tokens of all ids, one after the other."""
        return _codes("".join(self._texts))

    @functools.cached_property
    def spans(self) -> Spans:
        """What each id tells, for the grammar."""
        return Spans.of(self.remi, self._tokens, self._lengths)

    @functools.cached_property
    def _notes(self) -> np.ndarray:
        """How many notes each id completes."""
        begins = np.cumsum(self._lengths) - self._lengths
        return np.add.reduceat(self.remi.kinds(self._tokens) == DURATION, begins, dtype=np.int32)

    @functools.cached_property
    def _library(self) -> Tokenizer:
        texts = self._texts
        ids = {text: number for number, text in enumerate(texts)}
        library = Tokenizer(models.BPE(ids, [(texts[left], texts[right]) for left, right in self.merges]))
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return library

    @classmethod
    def learn(
        cls,
        pieces: Iterable[Piece],
        *,
        merges: int,
        grid: NoteEvents = NoteEvents(),
        within: str = "bar",
        per_track: bool = False,
    ) -> "RemiBpe":
        """The representation with `merges` ids more than REMI+, those that make most of the pairs in `pieces` one.

        Raises UserError where fewer pairs than that stand there `LEAST_COUNT` times.
        """
        plain = cls(grid, (), within, per_track)
        if merges < 0:
            raise UserError(f"merges is {merges}; give 0 or more")
        if not merges:
            return plain
        trainer = trainers.BpeTrainer(
            vocab_size=plain.vocab_sizes[0] + merges,
            min_frequency=LEAST_COUNT,
            initial_alphabet=plain._texts,
            show_progress=False,
        )
        library = plain._library
        library.train_from_iterator((plain._words(plain.remi.encode(plain.quantize(piece))) for piece in pieces), trainer)
        ids = {text: number for number, text in enumerate(plain._texts)}
        pairs = []
        for left, right in json.loads(library.to_str())["model"]["merges"]:
            pairs.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids))
        found = len(ids) - plain.vocab_sizes[0]
        if found < merges:
            raise UserError(f"merges is {merges}, but the pieces give only {found}; ask for at most {found}")
        return cls(grid, tuple(pairs), within, per_track)

    # Pieces to steps and back

    def quantize(self, piece: Piece, loss: GridLoss | None = None, end: int | None = None) -> Piece:
        """The nearest piece that the vocabulary can tell; what that loses is added to `loss`."""
        return self.remi.quantize(piece, loss, end)

    def encode(self, piece: Piece) -> np.ndarray:
        """The steps of a quantized piece, int32 [N, 1]. Raises ValueError for one that is not quantized."""
        return self.merge(self.remi.encode(piece))[:, None]

    def decode(self, steps: np.ndarray) -> Piece:
        """The piece that `steps` [N, 1] tell, up to the first EOS; BOS, PAD and a last note that is not whole are passed over.

        Raises ValueError, naming the step, for an id that is not in the vocabulary, and for tokens that make no stream.
        """
        ids = np.asarray(steps)[:, 0]
        stop = np.flatnonzero(ids == EOS)
        return self.remi.decode(self.expand(ids[: stop[0]] if len(stop) else ids)[0])

    def num_notes(self, steps: np.ndarray) -> np.ndarray:
        """How many notes each of `steps` [..., 1] completes, int32 [...]."""
        return self._notes[np.asarray(steps)[..., 0]]

    def expand(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [T] of REMI+, where among them each of `ids` [N] begins, and their number at the end: [N + 1])."""
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
        """The ids int32 [N] that tell the `tokens` [T] of REMI+, whose head must be whole."""
        if not self.merges:
            return tokens.astype(np.int32)
        return np.array(self._library.encode(self._words(tokens)).ids, np.int32)

    def _words(self, tokens: np.ndarray) -> str:
        """`tokens` as letters, with a space before each word."""
        codes = np.insert(tokens + CHARACTER, np.flatnonzero(self.word_starts(tokens)), ord(" "))
        return codes.astype("<u4").tobytes().decode("utf-32-le")

    def word_starts(self, tokens: np.ndarray) -> np.ndarray:
        """Which of the `tokens` [T] of a stream with its head begin a word; those of the head and EOS are alone."""
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
        if self.per_track:
            moments, track = self.remi.tracks(kind, value)
            starts[moments[1:]] |= np.diff(track) != 0
        return starts

    # Parts of pieces

    def head_length(self, steps: np.ndarray) -> int:
        """How many of the first `steps` [N, 1] are given, not predicted: BOS, the bar, the meter and the tempo in force."""
        return HEAD

    def window(self, steps: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """The last bars of `steps` [N, 1] that fit in `length` steps, with their head, and the number of the bar they begin in.

        All of `steps`, and 0, where they fit. Of a last bar that is too long by itself, the last notes that fit.
        """
        window, bar = self._excerpts(steps).last(length)
        return window[:, None], bar

    join = staticmethod(join)

    def windows(self, steps: np.ndarray, context: int) -> Iterator[tuple[np.ndarray, int]]:
        """(steps [M, 1], first): windows of at most `context` steps, which from `first` on foretell all but BOS, each once.

        Raises ValueError for a context that has no room for more than the past that a window begins with.
        """
        for window, first in self._excerpts(steps).all(context):
            yield window[:, None], first

    def _excerpts(self, steps: np.ndarray) -> Excerpts:
        ids = np.asarray(steps, np.int32)[:, 0]
        return Excerpts(self.remi, ids, *self.expand(ids), self.merge)

    # Identity

    def to_dict(self) -> dict:
        """The settings, JSON-ready, with the name of the representation."""
        merges = [list(pair) for pair in self.merges]
        settings = dict(grid=self.grid.to_dict(), within=self.within, per_track=self.per_track, merges=merges)
        return {"representation": "remi_bpe", **settings}

    @classmethod
    def from_dict(cls, values: dict) -> "RemiBpe":
        """The representation that `to_dict` told of. Raises UserError for another kind, ValueError for merges that are none."""
        if values.get("representation") != "remi_bpe":
            raise UserError(f"the representation is {values.get('representation')!r}, not remi_bpe")
        merges = tuple(tuple(pair) for pair in values["merges"])
        return cls(NoteEvents.from_dict(values["grid"]), merges, values["within"], values["per_track"])

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that the meaning of an id depends on."""
        text = json.dumps([self.to_dict(), self.grid.fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the settings and the merges, so that the file is there whole or not at all."""
        write_json(pathlib.Path(path), {**self.to_dict(), "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: str | pathlib.Path, grid: NoteEvents = NoteEvents()) -> "RemiBpe":
        """What `save` wrote. Raises UserError, naming the file, where it is missing, damaged or not for `grid`."""
        try:
            values = json.loads(pathlib.Path(path).read_text())
            found = cls.from_dict(values)
            whole = values["fingerprint"] == found.fingerprint and bool(found.vocab_sizes)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; learn the merges first") from error
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"{path} holds no merges that can be read ({error}); learn them again") from error
        if not whole:
            raise UserError(f"{path} was changed since it was written; learn the merges again")
        if found.grid != grid:
            raise UserError(f"{path} was learned on another grid ({found.grid}, not {grid}); learn the merges again")
        return found


def _codes(text: str) -> np.ndarray:
    """The tokens that letters stand for."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64) - CHARACTER
