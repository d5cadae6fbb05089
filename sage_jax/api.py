"""What `import sage_jax` offers: a trained model that continues music, starts from instruments, and scores files."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax

from sage_jax import compilation_cache
from sage_jax.config import read_section
from sage_jax.corpus.contents import pitch_limits, unseen
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.continuation import continue_piece, first_bars
from sage_jax.decoding.engine import CHUNK, LIVE_CHUNK, STAGING_ROWS, Engine, stage_chunk_of
from sage_jax.decoding.request import Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.session import Session, stream
from sage_jax.errors import UserError
from sage_jax.evaluation import likelihood
from sage_jax.models.registry import inference_config, inference_parameters
from sage_jax.music.instruments import describe, programs_in, programs_of
from sage_jax.music.midi import at_resolution, read_midi
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, Piece
from sage_jax.music.quantization_stats import QuantizationStats, stats_rows
from sage_jax.takes import ANY, TRAINED, ContinuationConfig, Prompt, Score, Takes, at_true_tempos
from sage_jax.tasks.rewritten import plan_rewriting, rewritten
from sage_jax.tokenizers.incremental import DecodedEvent
from sage_jax.tokenizers.leads import SPAN, Lead, lead_of
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.weights.saved_model import SavedModel, with_settings

if TYPE_CHECKING:
    from sage_jax.live.session import LiveSession

Instruments = str | Iterable[int | str] | None


class Model:
    """A trained model. `sage_jax.load` makes it from a run's folder.

    run: the RunConfig that it was trained with. config: the model's, as it is computed on this device. step: of the checkpoint.
    valid: the last validation up to it, as its step and the nats per note; None where it is not known. sampling, continuation:
    the settings that calls begin with, those of the run's config.
    """

    def __init__(self, saved: SavedModel, sampling: SamplingConfig, continuation: ContinuationConfig):
        self.run, self.step, self.tokenizer, self.valid = saved.run, saved.step, saved.tokenizer, saved.valid
        self.sampling, self.continuation, self._contents = sampling, continuation, saved.contents
        self.config = inference_config(saved.run.model, jax.devices()[0])
        self.params = inference_parameters(self.config, saved.params)
        self._engines: dict[tuple[int, int, int, int], Engine] = {}

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

    def accompany(
        self,
        music: str | os.PathLike | Piece,
        own: Instruments,
        *,
        lead: str = "1bar",
        bars: str | tuple[int, int] | None = None,
        num_samples: int | None = None,
        seed: int | None = None,
        max_events: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Takes:
        """Writes the tracks `own` to the others of a MIDI file or a Piece, which stay as they are, note for note.

        own: General MIDI programs, names and "drums", "40:2" for the second track of one; what the file has of them in these
        bars is replaced. lead: when the model knows the others, one of leads.LEADS: "1bar" is a bar ahead, "0" at once, "-0.5"
        half a quarter late. bars: (first, last) or "first-last", from 1; None for all. Raises UserError for a model without
        roles, an unknown lead, bars outside the piece, and if nothing is given.
        """
        wanted = self._settings(num_samples=num_samples, seed=seed, max_events=max_events)
        return self._rewrite(music, own, lead_of(lead), bars, wanted, sampling)

    def infill(
        self,
        music: str | os.PathLike | Piece,
        bars: str | tuple[int, int],
        own: Instruments = None,
        *,
        num_samples: int | None = None,
        seed: int | None = None,
        max_events: int | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Takes:
        """Rewrites `bars` of a MIDI file or a Piece, given the rest, which stays as it is, note for note.

        bars, own and errors as in `accompany`; own is None for all tracks, and each of them must be in the piece.
        """
        wanted = self._settings(num_samples=num_samples, seed=seed, max_events=max_events)
        return self._rewrite(music, own, SPAN, bars, wanted, sampling)

    def _rewrite(
        self,
        music: str | os.PathLike | Piece,
        own: Instruments,
        lead: Lead,
        bars: str | tuple[int, int] | None,
        wanted: ContinuationConfig,
        sampling: SamplingConfig | None,
    ) -> Takes:
        plan = plan_rewriting(music, self.tokenizer, None if own is None else _as_list(own), bars, lead)
        sampling = self.sampling if sampling is None else sampling
        return rewritten(self.engine(wanted.num_samples), plan, wanted, sampling)

    def score(self, music: str | os.PathLike | Piece) -> Score:
        """The likelihood of a MIDI file or a Piece under the model. Raises UserError for a file without notes."""
        name, piece = self._read(music, "the piece")
        if not len(piece.notes):
            raise UserError(f"{name} has no notes; give music to score")
        steps = self.tokenizer.encode(self.tokenizer.quantize(piece))
        context = self.run.context
        found = likelihood.bits(self.config, self.params, self.tokenizer, [steps], context, max(1, 1024 // context))
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
        return stream(self.live_engine(1).sibling(), request)

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
        engine = self.live_engine(1)
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

    def engine(
        self, rows: int, chunk: int = CHUNK, staging_rows: int | None = None, stage_chunk: int | None = None
    ) -> Engine:
        """The engine for `rows` continuations at once, which keeps its compiled programs.

        chunk, staging_rows, stage_chunk: as of Engine; by default prompts are read as `stage_chunk_of` says.
        """
        stage_chunk = stage_chunk or stage_chunk_of(self.config)
        key = (rows, chunk, min(rows, STAGING_ROWS) if staging_rows is None else staging_rows, stage_chunk)
        if key not in self._engines:
            self._engines[key] = Engine(
                self.config,
                self.params,
                self.tokenizer,
                context=self.run.context,
                rows=rows,
                chunk=chunk,
                stage_chunk=stage_chunk,
                staging_rows=staging_rows,
            )
        return self._engines[key]

    def live_engine(self, rows: int) -> Engine:
        """The engine for `rows` players: it reads few events at a time, so that nobody waits long for the next note."""
        return self.engine(rows, LIVE_CHUNK, staging_rows=1, stage_chunk=LIVE_CHUNK)

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
