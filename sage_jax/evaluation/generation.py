"""Generates a model's continuations of the prompts, in full batches and resumably."""

import dataclasses
import hashlib
import json
import operator
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sage_jax.decoding.continuation import Request, continue_batch
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.prompts import Prompt
from sage_jax.evaluation.syntax import SyntaxErrors, step_errors
from sage_jax.files import replacing, write_json
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.note_events import EOS, ONSET

BATCHES_SAVED = 8  # batches of rows per saved file: the most work that a killed call loses

ProgressCallback = Callable[[int, int], None]  # called with the number of finished items and their total


@dataclasses.dataclass(frozen=True)
class SystemOutput:
    """The continuations of one system.

    continuations: pieces [P][K] that begin at tick 0, where the prompt ends. faults: the syntax errors of all of them.
    failures: the number of continuations without notes, which are scored as silence. notes: lines that a reader should know.
    speed: throughput and times of a model's decoding.
    """

    continuations: list[list[Piece]]
    faults: SyntaxErrors = dataclasses.field(default_factory=SyntaxErrors)
    failures: int = 0
    notes: tuple[str, ...] = ()
    speed: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How a model continues prompts: samples of each, rows of a batch, maximum events of a row, and the seed of all keys."""

    samples: int
    batch_size: int
    max_events: int
    seed: int
    sampling: SamplingConfig


@dataclasses.dataclass(frozen=True)
class DecodingTotals:
    """The events generated in one call, the steps of all rows including idle ones, and the seconds spent."""

    events: int = 0
    steps: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    def __add__(self, other: "DecodingTotals") -> "DecodingTotals":
        return DecodingTotals(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))


def generate_continuations(
    generator: Generator,
    prompts: Sequence[Prompt],
    decoding: DecodingConfig,
    context: int,
    identity: dict[str, Any],
    folder: pathlib.Path,
    progress: ProgressCallback = lambda done, total: None,
) -> SystemOutput:
    """Continues each prompt `decoding.samples` times. Resumes a stopped call, with the same result.

    context: the training context in events. identity: JSON-ready values that identify the model. Finished rows are kept in a
    subfolder of `folder` for each identity and settings. progress: counts rows.
    """
    tokenizer = generator.tokenizer
    quantized = [tokenizer.quantize(prompt.prompt) for prompt in prompts]
    encoded = [tokenizer.encode(piece)[:-1] for piece in quantized]
    # The first bar after the prompt, in the quantized piece's bars.
    first_bars = [
        int(piece.bars.locate(np.array([prompt.end]))[0][0]) for piece, prompt in zip(quantized, prompts, strict=True)
    ]
    places = [(prompt.name, prompt.start, prompt.bars) for prompt in prompts]
    digest = hashlib.sha256(repr(places).encode() + b"".join(events.tobytes() for events in encoded)).hexdigest()[:16]
    settings = {**identity, "decoding": dataclasses.asdict(decoding), "context": context, "prompts": digest}
    folder = folder / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    write_json(folder / "settings.json", settings, indent=2)

    # Rows of similar length share a batch: they are sorted by the prompt's events times the bars to generate.
    rows = [
        Request(index * decoding.samples + sample, encoded[index], first_bars[index], prompt.stop_bar)
        for index, prompt in enumerate(prompts)
        for sample in range(decoding.samples)
    ]
    rows.sort(key=lambda row: (len(row.events) * (row.stop_bar - row.first_bar), row.number), reverse=True)
    size = BATCHES_SAVED * decoding.batch_size
    new_events: dict[int, np.ndarray] = {}
    rows_cut, totals = 0, DecodingTotals()
    for block, start in enumerate(range(0, len(rows), size)):
        path, part = folder / f"rows_{block:05d}.npz", rows[start : start + size]
        if not path.exists():
            count_rows = lambda done: progress(len(new_events) + done, len(rows))
            totals += _decode(generator, part, prompts, decoding, context, count_rows)
            _save(path, part, encoded, decoding)
        found, cut_here = _load(path)
        new_events.update(found)
        rows_cut += cut_here
        progress(len(new_events), len(rows))

    pieces, errors, failures = [], SyntaxErrors(), 0
    for index, prompt in enumerate(prompts):
        prompt_errors = step_errors(tokenizer, encoded[index])
        pieces.append([])
        for sample in range(decoding.samples):
            whole = np.concatenate([encoded[index], new_events[index * decoding.samples + sample]])
            errors += step_errors(tokenizer, whole) - prompt_errors
            pieces[-1].append(prompt.continuation(tokenizer.decode(whole)))
        failures += sum(not len(piece.notes) for piece in pieces[-1])
    notes = ()
    if rows_cut:
        notes = (f"{rows_cut} continuation(s) were cut at max_events = {decoding.max_events}; the rest of each is silent",)
    return SystemOutput(pieces, errors, failures, notes, _speed(totals, decoding.batch_size))


def _decode(
    generator: Generator,
    rows: Sequence[Request],
    prompts: Sequence[Prompt],
    decoding: DecodingConfig,
    context: int,
    progress: Callable[[int], None],
) -> DecodingTotals:
    """Finishes `rows` in batches; a waiting row takes the place of a finished one."""
    waiting, batch = list(rows), []
    totals = DecodingTotals()
    while waiting or batch:
        free = decoding.batch_size - len(batch)
        batch, waiting = batch + waiting[:free], waiting[free:]
        spare = [dataclasses.replace(batch[0], finished=True) for _ in range(decoding.batch_size - len(batch))]
        generation = continue_batch(
            generator,
            batch + spare,  # padded, since another batch size would be compiled again
            max_events=decoding.max_events,
            context=context,
            sampling=decoding.sampling,
            seed=decoding.seed,
        )
        totals += DecodingTotals(
            sum(map(len, generation.continuations)),
            generation.steps * decoding.batch_size,
            generation.prefill_seconds,
            generation.decode_seconds,
        )
        for row in batch:
            if row.finished:
                _reopen(generator.tokenizer, row, prompts[row.number // decoding.samples], decoding.max_events)
        batch = [row for row in batch if not row.finished]
        progress(len(rows) - len(waiting) - len(batch))
    return totals


def _reopen(tokenizer: Tokenizer, row: Request, prompt: Prompt, max_events: int) -> None:
    """Continues a row that stopped at its last bar but is shorter than required, since its meters have shorter bars."""
    if row.drawn >= max_events or row.events[-1, ONSET] == EOS:
        return
    written = tokenizer.decode(row.events)
    missing = prompt.end + prompt.length - written.bar_start(row.stop_bar)
    if missing > 0:
        row.stop_bar += -(-missing // int(written.bars.lengths[-1]))
        row.finished = False


def _save(path: pathlib.Path, rows: Sequence[Request], encoded: list[np.ndarray], decoding: DecodingConfig) -> None:
    parts = [row.events[len(encoded[row.number // decoding.samples]) :] for row in rows]
    ended = [len(part) > 0 and part[-1, ONSET] == EOS for part in parts]
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            numbers=[row.number for row in rows],
            lengths=[len(part) for part in parts],
            cut=[row.drawn >= decoding.max_events and not end for row, end in zip(rows, ended, strict=True)],
            events=np.concatenate(parts),
        )


def _load(path: pathlib.Path) -> tuple[dict[int, np.ndarray], int]:
    """The new events by row number, and the number of cut rows. Raises UserError for a damaged file."""
    try:
        with path.open("rb") as file, np.load(file) as saved:
            parts = np.split(saved["events"], np.cumsum(saved["lengths"])[:-1])
            return dict(zip(saved["numbers"].tolist(), parts, strict=True)), int(saved["cut"].sum())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read ({error}); delete it, and its continuations are generated again") from error


def _speed(totals: DecodingTotals, batch_size: int) -> dict[str, float]:
    """Throughput and times of this call; empty if every row was finished before."""
    if not totals.steps:
        return {}
    return {
        "events_per_second": totals.events / totals.decode_seconds,
        "prefill_seconds": totals.prefill_seconds,
        "decode_seconds": totals.decode_seconds,
        "batch_size": batch_size,
        "rows_in_use": totals.events / totals.steps,
    }
