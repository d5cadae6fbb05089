"""What `import sage_jax` offers: a trained model that continues music, starts from instruments, and scores files."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from sage_jax import compilation_cache
from sage_jax.config import read_section
from sage_jax.corpus.contents import pitch_limits, unseen
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.continuation import Continuations, continue_piece, first_bars
from sage_jax.decoding.engine import CHUNK, LIVE_CHUNK, STAGING_ROWS, Engine
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.session import Session, stream
from sage_jax.errors import UserError
from sage_jax.evaluation import likelihood
from sage_jax.models.registry import inference_config, inference_parameters
from sage_jax.music.instruments import describe, programs_in, programs_of
from sage_jax.music.midi import at_resolution, read_midi, save_midi
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, Piece
from sage_jax.music.quantization_stats import QuantizationStats, stats_rows
from sage_jax.tokenizers.incremental import DecodedEvent
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.weights.saved_model import SavedModel, with_settings

if TYPE_CHECKING:
    from sage_jax.live.session import LiveSession

ANY, TRAINED = "any", "trained"
Instruments = str | Iterable[int | str] | None


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

    prompt: what the model read, at the tempos of the file. changed: as in Prompt. continuations: lengths and times.
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


class Model:
    """A trained model. `sage_jax.load` makes it from a run's folder.

    run: the RunConfig that it was trained with. step: of the checkpoint. valid: the last validation up to it,
    as its step and the nats per note; None where it is not known. sampling, continuation: the settings that calls
    begin with, those of the run's config.
    """

    def __init__(self, saved: SavedModel, sampling: SamplingConfig, continuation: ContinuationConfig):
        self.run, self.step, self.tokenizer, self.valid = saved.run, saved.step, saved.tokenizer, saved.valid
        self.sampling, self.continuation, self._contents = sampling, continuation, saved.contents
        self._config = inference_config(saved.run.model, jax.devices()[0])
        self.params = inference_parameters(self._config, saved.params)
        self._engines: dict[tuple[int, int, int], Engine] = {}

    def __repr__(self) -> str:
        return f"Model({self.run.model.name}, step {self.step})"

    def continue_(
        self,
        prompt: str | os.PathLike | Piece | Prompt,
        *,
        bars: int | None = None,
        prompt_bars: int | None = None,
        num_samples: int | None = None,
        instruments: Instruments = None,
        seed: int | None = None,
        max_events: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Takes:
        """Continues a MIDI file, a Piece or a Prompt by `bars` bars after its first `prompt_bars` bars.

        instruments: those that may play. None for the prompt's own, "any" for all, or a list of General MIDI programs, names
        and "drums". Settings that are None are those of `continuation` and `sampling`. Raises UserError for a file that can't
        be read, for a prompt of too few bars, and where none of the prompt's instruments may play.
        """
        wanted = self._settings(
            num_bars=bars, prompt_bars=prompt_bars, num_samples=num_samples, seed=seed, max_events=max_events
        )
        return self._write(*self._prompted(prompt, instruments, wanted), wanted, sampling)

    def read_prompt(self, prompt: str | os.PathLike | Piece, bars: int | None = None) -> Prompt:
        """The first `bars` bars of a MIDI file or a Piece, from the first bar with a note on. Raises UserError as continue_."""
        bars = self.continuation.prompt_bars if bars is None else bars
        in_file, in_prompt = QuantizationStats(), QuantizationStats()
        name, whole = self._read(prompt, "the prompt", in_file)
        read = first_bars(whole, bars, name)
        end = read.bar_start(bars)
        quantized = self.tokenizer.quantize(read, in_prompt, end)
        in_prompt.count({"notes": len(read.notes), "tempos": len(read.tempos), "meters": len(read.meters)})
        changed = (
            *(f"prompt: {line}" for line in unseen(self._contents, quantized)),
            *(
                f"{where}: {what}: {text}"
                for where, loss in (("file", in_file), ("prompt", in_prompt))
                for what, text, is_changed in stats_rows(loss.to_dict())
                if is_changed
            ),
        )
        return Prompt(name, read, quantized, quantized.bar_of(end - 1) + 1, changed)

    def start(
        self,
        instruments: Instruments = ANY,
        *,
        bars: int | None = None,
        qpm: float | None = None,
        meter: tuple[int, int] | None = None,
        num_samples: int | None = None,
        seed: int | None = None,
        max_events: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Takes:
        """Writes `bars` bars without a prompt, at `qpm` quarters per minute in the meter (n, d).

        instruments: as in `continue_`. Raises UserError for a meter that the vocabulary lacks.
        """
        wanted = self._settings(num_bars=bars, qpm=qpm, meter=meter, num_samples=num_samples, seed=seed, max_events=max_events)
        return self._write(*self._prompted(None, instruments, wanted), wanted, sampling)

    def score(self, music: str | os.PathLike | Piece) -> Score:
        """The likelihood of a MIDI file or a Piece under the model. Raises UserError for a file without notes."""
        name, piece = self._read(music, "the piece")
        if not len(piece.notes):
            raise UserError(f"{name} has no notes; give music to score")
        steps = self.tokenizer.encode(self.tokenizer.quantize(piece))
        context = self.run.context
        found = likelihood.bits(self._config, self.params, self.tokenizer, [steps], context, max(1, 1024 // context))
        bits, notes = found.bits[0], max(int(found.notes[0]), 1)
        return Score(
            bits_per_note=float(bits.sum() / notes),
            bits_per_second=float(bits.sum() / found.seconds[0]),
            notes=int(found.notes[0]),
            seconds=float(found.seconds[0]),
            attributes=dict(zip(self.tokenizer.attributes, (bits / notes).tolist(), strict=True)),
        )

    def stream(
        self,
        prompt: str | os.PathLike | Piece | Prompt | None = None,
        *,
        bars: int | None = None,
        prompt_bars: int | None = None,
        instruments: Instruments = None,
        seed: int | None = None,
        max_events: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[DecodedEvent]:
        """One continuation, event by event as it is drawn; ticks and seconds count from the beginning of the prompt.

        prompt: as in `continue_`; None to start from nothing. Other arguments as there. Notes are not cut at the last bar.
        Raises UserError as `continue_`, and for a model whose tokens are not NoteEvents.
        """
        wanted = self._settings(num_bars=bars, prompt_bars=prompt_bars, seed=seed, max_events=max_events)
        prompt, programs = self._prompted(prompt, instruments, wanted)
        request = Request(
            self.tokenizer.encode(prompt.quantized)[:-1],
            Limits(
                first_bar=prompt.bars,
                stop_bar=prompt.bars + wanted.num_bars,
                programs=programs,
                pitches=self._pitches(prompt.quantized, wanted),
            ),
            self.sampling if sampling is None else sampling,
            self.run.representation.steps(wanted.max_events),
            wanted.seed,
        )
        return stream(self.engine(1, LIVE_CHUNK).sibling(), request)

    def session(
        self,
        *,
        instruments: Instruments = ANY,
        qpm: float = DEFAULT_QPM,
        meter: tuple[int, int] = DEFAULT_METER,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
    ) -> Session:
        """A piece to write together with the model: `push` notes, `draw` the model's, `rollback` to a tick.

        instruments: those that the model may play: "any", or a list of programs, names and "drums". Its programs are compiled
        now, so that nothing is compiled while playing. Raises UserError as `stream`.
        """
        engine = self.engine(1, LIVE_CHUNK)
        engine.warmup()
        return Session(
            Scheduler(engine.sibling(), interleaved=True),
            sampling=self.sampling if sampling is None else sampling,
            programs=_allowed(instruments),
            qpm=qpm,
            meter=meter,
            seed=seed,
        )

    def live(self, *, sessions: int = 1, **settings: Any) -> "LiveSession":
        """A live session: give it a player's note-ons and note-offs, and poll it for the model's, each with its time.

        settings: fields of LiveSettings (live/settings.py), such as qpm, meter, mode and instruments. sessions: those that the
        session's `host` can have at once; `session.host.open` opens others until all are closed. Compiles first. Raises
        UserError naming the setting.
        """
        from sage_jax.live.host import LiveHost
        from sage_jax.live.settings import LiveSettings

        wanted = LiveSettings(**settings)
        wanted.check(self.tokenizer.grid)
        host = LiveHost(self, sessions, closes_when_empty=True)
        host.start()
        return host.open(wanted)

    def engine(self, rows: int, chunk: int = CHUNK, staging_rows: int | None = None) -> Engine:
        """The engine for `rows` continuations at once, which keeps its compiled programs.

        chunk, staging_rows: as of Engine.
        """
        key = (rows, chunk, min(rows, STAGING_ROWS) if staging_rows is None else staging_rows)
        if key not in self._engines:
            self._engines[key] = Engine(
                self._config,
                self.params,
                self.tokenizer,
                context=self.run.context,
                rows=rows,
                chunk=chunk,
                staging_rows=staging_rows,
            )
        return self._engines[key]

    def _read(self, music: str | os.PathLike | Piece, unnamed: str, loss: QuantizationStats | None = None) -> tuple[str, Piece]:
        """What messages call the music, `unnamed` where it is no file, and the piece on the model's grid."""
        ticks = self.tokenizer.grid.ticks_per_quarter
        if isinstance(music, Piece):
            return unnamed, at_resolution(music, ticks, loss=loss)
        return os.fspath(music), read_midi(music, ticks, loss=loss)

    def _prompted(
        self, prompt: str | os.PathLike | Piece | Prompt | None, instruments: Instruments, wanted: ContinuationConfig
    ) -> tuple[Prompt, list[int] | None]:
        """The prompt as the model reads it, empty for None, and the programs that may continue it."""
        if prompt is not None:
            found = prompt if isinstance(prompt, Prompt) else self.read_prompt(prompt, wanted.prompt_bars)
            return found, _playable(instruments, programs_in(found.quantized), found.name)
        grid = self.tokenizer.grid
        if wanted.meter not in grid.meters:
            raise UserError(
                f"continuation.meter is {wanted.meter!r}, which the vocabulary lacks; give a shorter bar or a simpler beat"
            )
        read = Piece.from_notes([], grid.ticks_per_quarter, wanted.qpm, wanted.meter)
        return Prompt("nothing", read, self.tokenizer.quantize(read), 0), _allowed(instruments)

    def _pitches(self, prompt: Piece, wanted: ContinuationConfig) -> dict[int, tuple[int, int]]:
        """(lowest, highest) pitch by program; empty for no limits."""
        is_limited = wanted.pitches == TRAINED and isinstance(self.tokenizer, NoteEvents)
        return pitch_limits(self._contents, prompt) if is_limited else {}

    def _settings(self, **given: Any) -> ContinuationConfig:
        return dataclasses.replace(self.continuation, **{name: value for name, value in given.items() if value is not None})

    def _write(
        self, prompt: Prompt, programs: list[int] | None, wanted: ContinuationConfig, sampling: SamplingConfig | None
    ) -> Takes:
        found = continue_piece(
            self.engine(wanted.num_samples),
            prompt.quantized,
            prompt_bars=prompt.bars,
            num_bars=wanted.num_bars,
            max_events=self.run.representation.steps(wanted.max_events),
            num_samples=wanted.num_samples,
            sampling=self.sampling if sampling is None else sampling,
            seed=wanted.seed,
            programs=programs,
            pitches=self._pitches(prompt.quantized, wanted),
        )
        pieces = tuple(at_true_tempos(piece, prompt, found.prompt_end) for piece in found.pieces)
        return Takes(pieces, at_true_tempos(prompt.quantized, prompt, found.prompt_end), prompt.changed, found)


def load(folder: str | os.PathLike, *, best: bool = False, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Model:
    """The model of a name, of a folder of launch.export, or of the newest checkpoint in a run's folder.

    folder: "sage-20m" or another name of weights that come with the package; or what launch.export has as --output, or
    launch.train as --workdir. best: of a run, the checkpoint with the lowest validation loss instead; the newest is the default
    because it shows a run that is still training as it is. settings: sections 'sampling' and 'continuation', whose fields
    replace the run's own; None leaves a field as it is. Compiled programs are kept on disk for the next process
    (compilation_cache.py). Raises UserError if there is no run or no checkpoint, or if its layout is an older one.
    """
    saved = SavedModel.open(folder, best)
    compilation_cache.enable()
    sections = with_settings(saved.sections, settings)
    sampling = read_section(SamplingConfig, "sampling", sections)
    continuation = read_section(ContinuationConfig, "continuation", sections)
    return Model(saved, sampling, continuation)


def at_true_tempos(take: Piece, prompt: Prompt, prompt_end: int) -> Piece:
    """`take` with the file's tempos instead of the quantized ones up to the tick `prompt_end`, at which its prompt ends.

    The tempo in force at the end of the prompt stays the file's; later changes are the model's.
    """
    tempos = take.tempos[take.tempos["tick"] >= max(prompt_end, 1)].copy()
    tempos["qpm"][tempos["qpm"] == prompt.quantized.tempos["qpm"][-1]] = prompt.read.tempos["qpm"][-1]
    tempos = np.concatenate([prompt.read.tempos, tempos])
    return dataclasses.replace(take, tempos=tempos[np.append(True, np.diff(tempos["qpm"]) != 0)])


def _playable(instruments: Instruments, own: list[int], name: str) -> list[int] | None:
    """The programs that may continue a prompt with the programs `own`; None for all. Raises UserError if none of `own` may."""
    if instruments is None:
        return own
    if instruments == ANY:
        return None
    allowed = programs_of(_as_list(instruments))
    if not set(allowed) & set(own):
        raise UserError(
            f"{name} is for {describe(own)}, and only {describe(allowed)} may play; "
            "add an instrument of the prompt to the list, or give 'any'"
        )
    return allowed


def _allowed(instruments: Instruments) -> list[int] | None:
    return None if instruments in (None, ANY) else programs_of(_as_list(instruments))


def _as_list(instruments: str | Iterable[int | str]) -> list[int | str]:
    return [*instruments.split(",")] if isinstance(instruments, str) else list(instruments)
