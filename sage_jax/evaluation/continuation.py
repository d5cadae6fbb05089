"""What systems write behind the prompts: a model's in full batches, resumably, and other people's from MIDI files."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sage_jax.decoding.continuation import Row, extend
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.evaluation.prompts import Prompt, empty
from sage_jax.evaluation.syntax import Faults, faults_of_events, faults_of_notes
from sage_jax.files import replacing
from sage_jax.music.events import NoteEvents
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.music.notes import Piece
from sage_jax.music.workers import Failure, run_tasks

SAVED_ROWS = 256  # finished rows in a file, and the most that a kill can cost


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
    """Continues each prompt `decoding.samples` times; goes on where an earlier call was stopped.

    context: the events that the model was trained on at once. identity: what else the result depends on, JSON-ready: a folder
    of that name in `folder` keeps what is finished. progress: called with rows done and rows in all. A row is the same
    whatever the batch it is in.
    """
    tokenizer = generator.tokenizer
    encoded = [tokenizer.encode(tokenizer.quantize(prompt.prompt))[:-1] for prompt in prompts]
    settings = {**identity, "decoding": dataclasses.asdict(decoding), "context": context, "prompts": _digest(prompts, encoded)}
    del settings["decoding"]["batch_size"]
    store = _Store(folder / _hash(settings), settings)
    rows = [
        Row(index * decoding.samples + sample, encoded[index], prompt.prompt_bars, prompt.stop_bar)
        for index, prompt in enumerate(prompts)
        for sample in range(decoding.samples)
    ]
    todo = [row for row in rows if row.number not in store.rows]
    speed = _decode_all(generator, todo, decoding, context, store, lambda done: progress(done, len(rows)))
    pieces, faults, failures = [], Faults(), 0
    for index, prompt in enumerate(prompts):
        takes = [store.rows[index * decoding.samples + sample] for sample in range(decoding.samples)]
        faults = sum((faults_of_events(tokenizer, take) for take in takes), faults)
        wholes = [prompt.continuation(tokenizer.decode(np.concatenate([encoded[index], take]))) for take in takes]
        failures += sum(not len(whole.notes) for whole in wholes)
        pieces.append(wholes)
    return Written(pieces, faults, failures, speed=speed)


def _decode_all(
    generator: Generator,
    waiting: list[Row],
    decoding: Decoding,
    context: int,
    store: "_Store",
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Decodes `waiting` in batches, and returns how fast.

    A row that is finished makes room for another one; the densest come first, so that those in a batch are about as long.
    """
    begun = {row.number: len(row.events) for row in waiting}
    waiting.sort(key=lambda row: len(row.events) * (row.stop_bar - row.first_bar))  # taken from the end
    batch: list[Row] = []
    drawn = steps = 0
    prefill_seconds = decode_seconds = 0.0
    while waiting or any(not row.finished for row in batch):
        batch = [row for row in batch if not row.finished]
        while waiting and len(batch) < decoding.batch_size:
            batch.append(waiting.pop())
        spare = [dataclasses.replace(batch[0], finished=True) for _ in range(decoding.batch_size - len(batch))]
        generation = extend(
            generator,
            batch + spare,  # always as many: another size would be compiled anew
            max_events=decoding.max_events,
            context=context,
            sampling=decoding.sampling,
            seed=decoding.seed,
        )
        prefill_seconds += generation.prefill_seconds
        decode_seconds += generation.decode_seconds
        steps += generation.steps
        drawn += sum(len(each) for each in generation.continuations)
        for row in batch:
            if row.finished:
                store.add(row.number, row.events[begun[row.number] :])
        progress(len(store.rows))
    store.flush()
    if not steps:
        return {}
    return dict(
        events_per_second=drawn / decode_seconds,
        prefill_seconds=prefill_seconds,
        decode_seconds=decode_seconds,
        batch_size=decoding.batch_size,
        rows_in_use=drawn / (steps * decoding.batch_size),
    )


class _Store:
    """Finished rows of one model under fixed settings: events by the number of the row, in files of some hundred rows."""

    def __init__(self, folder: pathlib.Path, settings: dict[str, Any]):
        self._folder = folder
        with replacing(folder / "settings.json") as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n")
        self.rows: dict[int, np.ndarray] = {}
        self._files = sorted(folder.glob("rows_*.npz"))
        for path in self._files:
            try:
                with np.load(path) as saved:
                    parts = np.split(saved["events"], np.cumsum(saved["lengths"])[:-1])
                    self.rows.update(zip(saved["numbers"].tolist(), parts, strict=True))
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{path} can't be read ({error}); delete it: what it held is written again") from error
        self._fresh: list[int] = []

    def add(self, number: int, events: np.ndarray) -> None:
        self.rows[number] = events
        self._fresh.append(number)
        if len(self._fresh) >= SAVED_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._fresh:
            parts = [self.rows[number] for number in self._fresh]
            path = self._folder / f"rows_{len(self._files):05d}.npz"
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, numbers=self._fresh, lengths=[len(part) for part in parts], events=np.concatenate(parts))
            self._files.append(path)
        self._fresh = []


def _digest(prompts: Sequence[Prompt], encoded: list[np.ndarray]) -> str:
    places = [(prompt.name, prompt.start, prompt.bars) for prompt in prompts]
    return hashlib.sha256(repr(places).encode() + b"".join(events.tobytes() for events in encoded)).hexdigest()[:16]


def _hash(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


CANDIDATE = re.compile(r"(\d+)(?:_(\d+))?\.midi?", re.IGNORECASE)


def read_candidates(folder: pathlib.Path, prompts: Sequence[Prompt], samples: int, hold_prompt: bool) -> Written:
    """Continuations that another system wrote: NUMBER.mid or NUMBER_SAMPLE.mid in `folder`, numbered like the prompts.

    hold_prompt: whether the files begin with the prompt, or at its end. At most `samples` of each are read, the first by number.
    A file that is missing or broken is silence, counted and named. Raises UserError where no file fits, and where most files
    that are to begin with their prompt do not.
    """
    if not folder.is_dir():
        raise UserError(f"--candidates: {folder} is not a folder; give one with a MIDI file for each prompt")
    files: dict[int, dict[int, pathlib.Path]] = {}
    strangers = []
    for path in sorted(folder.iterdir()):
        match = CANDIDATE.fullmatch(path.name)
        if match and int(match[1]) < len(prompts):
            files.setdefault(int(match[1]), {})[int(match[2] or 0)] = path
        elif path.suffix.lower() in (".mid", ".midi"):
            strangers.append(path.name)
    if not files:
        raise UserError(f"--candidates: {folder} has no file like 0000.mid or 0000_1.mid, numbered like the prompts")
    count = min(samples, max(map(len, files.values())))
    tasks = [(index, path) for index, takes in files.items() for _, path in sorted(takes.items())[:count]]
    read = functools.partial(_read, prompts[0].prompt.ticks_per_quarter)
    found: dict[int, list[Piece]] = {index: [] for index in range(len(prompts))}
    broken = []
    for task, answer in sorted(run_tasks(read, [str(path) for _, path in tasks]), key=lambda pair: pair[0]):
        index, path = tasks[task]
        if isinstance(answer, Failure):
            broken.append(f"{path.name}: {answer.message.removeprefix(str(path)).lstrip(': ')}")
        else:
            found[index].append(answer)
    if hold_prompt:
        _check_prompts(folder, prompts, found)
    faults = sum((faults_of_notes(piece) for pieces in found.values() for piece in pieces), Faults())
    continuations, failures = [], 0
    for index, prompt in enumerate(prompts):
        pieces = [prompt.continuation(piece) if hold_prompt else piece for piece in found[index]]
        pieces += [empty(prompt.reference)] * (count - len(pieces))
        failures += sum(not len(piece.notes) for piece in pieces)
        continuations.append(pieces)
    missing = [f"{index:04d}" for index in range(len(prompts)) if len(files.get(index, ())) < count]
    lines = [
        *_listed(f"prompts without {count} file(s), counted as silence", missing),
        *_listed("files that can't be read, counted as silence", broken),
        *_listed("files that belong to no prompt, passed over", strangers),
    ]
    return Written(continuations, faults, failures, tuple(lines))


def _read(ticks_per_quarter: int, path: str) -> Piece | Failure:
    """Runs in a worker."""
    try:
        return read_midi(path, ticks_per_quarter)
    except BadMidi as error:
        return Failure(error.reason, str(error))


def _check_prompts(folder: pathlib.Path, prompts: Sequence[Prompt], found: dict[int, list[Piece]]) -> None:
    """Most files have to begin with most onsets of their prompt."""
    lacking = total = 0
    for index, pieces in found.items():
        given = np.unique(prompts[index].prompt.notes["onset"])
        for piece in pieces:
            total += 1
            lacking += 2 * np.isin(given, piece.notes["onset"]).sum() < len(given)
    if 2 * lacking > total:
        raise UserError(
            f"--candidates: {lacking} of {total} files in {folder} do not begin with the notes of their prompt; where they hold "
            "continuations alone, say so with --config.candidates_hold_prompt=False"
        )


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"]
