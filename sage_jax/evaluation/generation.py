"""Generates a model's continuations of the prompts, in full batches and resumably."""

import dataclasses
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.corpus.contents import pitch_limits
from sage_jax.decoding.constraints import Limits
from sage_jax.decoding.engine import Engine
from sage_jax.decoding.request import Continuation, Request
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.decoding.scheduler import Scheduler
from sage_jax.decoding.totals import Totals
from sage_jax.errors import UserError
from sage_jax.evaluation.prompts import Prompt
from sage_jax.evaluation.syntax import SyntaxErrors, step_errors
from sage_jax.files import replacing, write_json
from sage_jax.music.instruments import programs_in
from sage_jax.music.notes import Piece
from sage_jax.tokenizers.note_events import NoteEvents

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
    """How a model continues prompts: samples of each, maximum events of a row, and the seed of all keys."""

    samples: int
    max_events: int
    seed: int
    sampling: SamplingConfig


def generate_continuations(
    engine: Engine,
    prompts: Sequence[Prompt],
    decoding: DecodingConfig,
    identity: dict[str, Any],
    folder: pathlib.Path,
    progress: ProgressCallback = lambda done, total: None,
    contents: Mapping[str, Any] | None = None,
) -> SystemOutput:
    """Continues each prompt `decoding.samples` times, as many at once as the engine has rows.

    Resumes a stopped call, with the same result. identity: JSON-ready values that identify the model. Finished rows are kept in
    a subfolder of `folder` for each identity and settings. progress: counts rows. contents: of the training split, as
    `Contents.to_dict`, if the rows keep to the prompt's instruments and their pitches; None for no such limits.
    """
    tokenizer = engine.tokenizer
    quantized = [tokenizer.quantize(prompt.prompt) for prompt in prompts]
    encoded = [tokenizer.encode(piece)[:-1] for piece in quantized]
    # The first bar after the prompt, in the quantized piece's bars.
    first_bars = [
        int(piece.bars.locate(np.array([prompt.end]))[0][0]) for piece, prompt in zip(quantized, prompts, strict=True)
    ]
    places = [(prompt.name, prompt.start, prompt.bars) for prompt in prompts]
    digest = hashlib.sha256(repr(places).encode() + b"".join(events.tobytes() for events in encoded)).hexdigest()[:16]
    settings = {**identity, "decoding": dataclasses.asdict(decoding), "context": engine.limit, "prompts": digest}
    settings["contents"] = contents
    folder = folder / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    write_json(folder / "settings.json", settings, indent=2)

    requests = [
        Request(
            encoded[index],
            Limits(
                first_bar=first_bars[index],
                stop_tick=prompt.end + prompt.length,
                programs=None if contents is None else programs_in(quantized[index]),
                pitches=pitch_limits(contents or {}, quantized[index]) if isinstance(tokenizer, NoteEvents) else {},
            ),
            decoding.sampling,
            decoding.max_events,
            decoding.seed,
            index * decoding.samples + sample,
        )
        for index, prompt in enumerate(prompts)
        for sample in range(decoding.samples)
    ]
    # Long rows come first, so that none of them is left alone at the end.
    requests.sort(key=lambda row: (len(row.events) * prompts[row.number // decoding.samples].length, row.number), reverse=True)
    new_events: dict[int, np.ndarray] = {}
    rows_cut = 0
    for path in sorted(folder.glob("rows_*.npz")):
        found, cut_here = _load(path)
        new_events.update(found)
        rows_cut += cut_here
    progress(len(new_events), len(requests))
    scheduler, unsaved = Scheduler(engine), []
    for row in scheduler.run([request for request in requests if request.number not in new_events]):
        unsaved.append(row)
        if len(unsaved) == engine.rows or len(new_events) + len(unsaved) == len(requests):
            _save(folder, unsaved)
            new_events.update((row.request.number, row.events) for row in unsaved)
            rows_cut += sum(_is_cut(row) for row in unsaved)
            unsaved = []
        progress(len(new_events) + len(unsaved), len(requests))
    engine.reset()

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
    return SystemOutput(pieces, errors, failures, notes, _speed(scheduler.totals, engine.rows))


def _is_cut(row: Continuation) -> bool:
    return not row.finished


def _save(folder: pathlib.Path, rows: Sequence[Continuation]) -> None:
    """Writes the rows to a new file of `folder`."""
    path = folder / f"rows_{len(list(folder.glob('rows_*.npz'))):05d}.npz"
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            numbers=[row.request.number for row in rows],
            lengths=[len(row.events) for row in rows],
            cut=[_is_cut(row) for row in rows],
            events=np.concatenate([row.events for row in rows]),
        )


def _load(path: pathlib.Path) -> tuple[dict[int, np.ndarray], int]:
    """The new events by row number, and the number of cut rows. Raises UserError for a damaged file."""
    try:
        with path.open("rb") as file, np.load(file) as saved:
            parts = np.split(saved["events"], np.cumsum(saved["lengths"])[:-1])
            return dict(zip(saved["numbers"].tolist(), parts, strict=True)), int(saved["cut"].sum())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read ({error}); delete it, and its continuations are generated again") from error


def _speed(totals: Totals, batch_size: int) -> dict[str, float]:
    """Throughput and times of this call; empty if every row was finished before."""
    if not totals.row_steps:
        return {}
    return {
        "events_per_second": totals.events / totals.decode_seconds,
        "prefill_seconds": totals.prefill_seconds,
        "decode_seconds": totals.decode_seconds,
        "batch_size": batch_size,
        "rows_in_use": totals.events / totals.row_steps,
    }
