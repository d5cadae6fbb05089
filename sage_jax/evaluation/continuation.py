"""What a model writes behind the prompts: in full batches, and resumably."""

import collections
import dataclasses
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.decoding.continuation import Row, extend
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.prompts import Prompt
from sage_jax.evaluation.syntax import Faults, faults_of_steps
from sage_jax.files import replacing, write_json
from sage_jax.music.events import EOS, ONSET
from sage_jax.music.notes import Piece
from sage_jax.music.representation import Representation

BATCHES_SAVED = 8  # batches of rows that are decoded and saved together: the most that a kill can cost


@dataclasses.dataclass(frozen=True)
class Written:
    """What one system wrote.

    continuations: pieces [P][K] that begin at tick 0, where the prompt ends. faults: of all of them. failures: how many came to
    nothing, and stand here as silence. notes: what a reader should know, a line each. speed: of a model's decoding.
    """

    continuations: list[list[Piece]]
    faults: Faults = Faults()
    failures: int = 0
    notes: tuple[str, ...] = ()
    speed: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a model continues prompts: samples of each, rows in a batch, the most events of a row, the seed of all keys."""

    samples: int
    batch_size: int
    max_events: int
    seed: int
    sampling: SamplingConfig


def write(
    generator: Generator,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    context: int,
    identity: dict[str, Any],
    folder: pathlib.Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Continues each prompt `decoding.samples` times; goes on where an earlier call was stopped, to the same end.

    context: the events that the model was trained on at once. identity: what else the result depends on, JSON-ready: a folder
    of its own in `folder` keeps what is finished. progress: called with rows done and rows in all.
    """
    tokenizer = generator.tokenizer
    quantized = [tokenizer.quantize(prompt.prompt) for prompt in prompts]
    encoded = [tokenizer.encode(piece)[:-1] for piece in quantized]
    # The bar in which a prompt ends or behind which it does, as the model counts bars.
    first_bars = [
        int(piece.bars.locate(np.array([prompt.end]))[0][0]) for piece, prompt in zip(quantized, prompts, strict=True)
    ]
    places = [(prompt.name, prompt.start, prompt.bars) for prompt in prompts]
    digest = hashlib.sha256(repr(places).encode() + b"".join(events.tobytes() for events in encoded)).hexdigest()[:16]
    settings = {**identity, "decoding": dataclasses.asdict(decoding), "context": context, "prompts": digest}
    folder = folder / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    write_json(folder / "settings.json", settings, indent=2)

    # Rows of about the same length share a batch: by the events in a bar of the prompt, times the bars to be written.
    rows = [
        Row(index * decoding.samples + sample, encoded[index], first_bars[index], prompt.stop_bar)
        for index, prompt in enumerate(prompts)
        for sample in range(decoding.samples)
    ]
    rows.sort(key=lambda row: (len(row.events) * (row.stop_bar - row.first_bar), row.number), reverse=True)
    size = BATCHES_SAVED * decoding.batch_size
    takes: dict[int, np.ndarray] = {}
    rows_cut, totals = 0, collections.Counter()
    for block, start in enumerate(range(0, len(rows), size)):
        path, part = folder / f"rows_{block:05d}.npz", rows[start : start + size]
        if not path.exists():
            spent = _decode(generator, part, prompts, decoding, context, lambda done: progress(len(takes) + done, len(rows)))
            totals.update(spent)
            _save(path, part, encoded, decoding)
        found, cut_here = _load(path)
        takes.update(found)
        rows_cut += cut_here
        progress(len(takes), len(rows))

    pieces, faults, failures = [], Faults(), 0
    for index, prompt in enumerate(prompts):
        given = faults_of_steps(tokenizer, encoded[index])
        pieces.append([])
        for sample in range(decoding.samples):
            whole = np.concatenate([encoded[index], takes[index * decoding.samples + sample]])
            faults += faults_of_steps(tokenizer, whole) - given
            pieces[-1].append(prompt.continuation(tokenizer.decode(whole)))
        failures += sum(not len(piece.notes) for piece in pieces[-1])
    notes = ()
    if rows_cut:
        notes = (f"{rows_cut} continuation(s) were cut at max_events = {decoding.max_events}; behind that they are silence",)
    return Written(pieces, faults, failures, notes, _speed(totals, decoding.batch_size))


def _decode(
    generator: Generator,
    rows: Sequence[Row],
    prompts: Sequence[Prompt],
    decoding: Decoding,
    context: int,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Finishes `rows` in batches, in which a row that is finished makes room for the next one; returns sums for `_speed`."""
    waiting, batch = list(rows), []
    spent = collections.Counter()
    while waiting or batch:
        room = decoding.batch_size - len(batch)
        batch, waiting = batch + waiting[:room], waiting[room:]
        spare = [dataclasses.replace(batch[0], finished=True) for _ in range(decoding.batch_size - len(batch))]
        generation = extend(
            generator,
            batch + spare,  # always as many: another size would be compiled anew
            max_events=decoding.max_events,
            context=context,
            sampling=decoding.sampling,
            seed=decoding.seed,
        )
        spent.update(
            events=sum(map(len, generation.continuations)),
            places=generation.steps * decoding.batch_size,
            prefill_seconds=generation.prefill_seconds,
            decode_seconds=generation.decode_seconds,
        )
        for row in batch:
            if row.finished:
                _reopen(generator.tokenizer, row, prompts[row.number // decoding.samples], decoding.max_events)
        batch = [row for row in batch if not row.finished]
        progress(len(rows) - len(waiting) - len(batch))
    return spent


def _reopen(tokenizer: Representation, row: Row, prompt: Prompt, max_events: int) -> None:
    """Lets a row go on that stopped at its last bar, but in meters of its own that make its bars shorter than the prompt's."""
    if row.drawn >= max_events or row.events[-1, ONSET] == EOS:
        return
    written = tokenizer.decode(row.events)
    missing = prompt.end + prompt.length - written.bar_start(row.stop_bar)
    if missing > 0:
        row.stop_bar += -(-missing // int(written.bars.lengths[-1]))
        row.finished = False


def _save(path: pathlib.Path, rows: Sequence[Row], encoded: list[np.ndarray], decoding: Decoding) -> None:
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
    """Events by the number of the row, and how many rows were cut. Raises UserError for a damaged file."""
    try:
        with path.open("rb") as file, np.load(file) as saved:
            parts = np.split(saved["events"], np.cumsum(saved["lengths"])[:-1])
            return dict(zip(saved["numbers"].tolist(), parts, strict=True)), int(saved["cut"].sum())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read ({error}); delete it: what it held is written again") from error


def _speed(totals: Mapping[str, float], batch_size: int) -> dict[str, float]:
    """Of what was decoded in this call; nothing where all was there already."""
    if not totals:
        return {}
    return {
        "events_per_second": totals["events"] / totals["decode_seconds"],
        "prefill_seconds": totals["prefill_seconds"],
        "decode_seconds": totals["decode_seconds"],
        "batch_size": batch_size,
        "rows_in_use": totals["events"] / totals["places"],
    }
