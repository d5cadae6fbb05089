"""Reads the continuations of other systems from folders of MIDI files."""

import functools
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from sage_jax.corpus.workers import Failure, run_tasks
from sage_jax.errors import UserError
from sage_jax.evaluation.generation import SystemOutput
from sage_jax.evaluation.prompts import Prompt, cut, empty
from sage_jax.evaluation.syntax import SyntaxErrors, note_errors
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.music.notes import Piece

CANDIDATE = re.compile(r"(\d+)(?:_(\d+))?\.midi?", re.IGNORECASE)


def read_candidates(folder: pathlib.Path, prompts: Sequence[Prompt], samples: int, include_prompt: bool) -> SystemOutput:
    """The continuations in `folder`: NUMBER.mid or NUMBER_SAMPLE.mid, numbered like the prompts.

    include_prompt: whether the files begin with the prompt or at its end. The first `samples` files of each prompt are read.
    A missing or unreadable file is scored as silence, and reported in the notes.
    Raises UserError if no file matches, or if most files should begin with their prompt but do not.
    """
    if not folder.is_dir():
        raise UserError(f"--candidates: {folder} is not a folder; give one with a MIDI file for each prompt")
    files: dict[int, dict[int, pathlib.Path]] = {}
    unmatched = []
    for path in sorted(folder.iterdir()):
        match = CANDIDATE.fullmatch(path.name)
        by_sample = files.setdefault(int(match[1]), {}) if match and int(match[1]) < len(prompts) else None
        if match and by_sample is not None and int(match[2] or 0) not in by_sample:
            by_sample[int(match[2] or 0)] = path
        elif path.suffix.lower() in (".mid", ".midi"):
            unmatched.append(path.name)
    if not files:
        raise UserError(f"--candidates: {folder} has no file like 0000.mid or 0000_1.mid, numbered like the prompts")
    count = min(samples, max(map(len, files.values())))
    tasks = [(index, path) for index, by_sample in files.items() for _, path in sorted(by_sample.items())[:count]]
    read = functools.partial(_read, prompts[0].prompt.ticks_per_quarter)
    found: dict[int, list[Piece]] = {index: [] for index in range(len(prompts))}
    unreadable = []
    for task, answer in sorted(run_tasks(read, [str(path) for _, path in tasks]), key=lambda pair: pair[0]):
        index, path = tasks[task]
        if isinstance(answer, Failure):
            unreadable.append(f"{path.name}: {answer.message.removeprefix(str(path)).lstrip(': ')}")
        else:
            found[index].append(answer)
    mismatched = _check_prompts(folder, prompts, found) if include_prompt else 0
    continuations, errors, failures = [], SyntaxErrors(), 0
    for index, prompt in enumerate(prompts):
        pieces = [cut(prompt.continuation(piece) if include_prompt else piece, prompt.length) for piece in found[index]]
        errors = sum(map(note_errors, pieces), errors)
        pieces += [empty(prompt.reference)] * (count - len(pieces))
        failures += sum(not len(piece.notes) for piece in pieces)
        continuations.append(pieces)
    missing = [f"{index:04d}" for index in range(len(prompts)) if len(files.get(index, ())) < count]
    lines = [
        *_listed(f"prompts without {count} file(s), scored as silence", missing),
        *_listed("unreadable files, scored as silence", unreadable),
        *_listed("ignored files, which match no prompt or repeat a sample", unmatched),
        *([f"{mismatched} file(s) do not begin with the notes of their prompt, but are scored anyway"] if mismatched else []),
    ]
    return SystemOutput(continuations, errors, failures, tuple(lines))


def _read(ticks_per_quarter: int, path: str) -> Piece | Failure:
    """Reads one file in a worker process."""
    try:
        return read_midi(path, ticks_per_quarter)
    except BadMidi as error:
        return Failure(error.reason, str(error))


def _check_prompts(folder: pathlib.Path, prompts: Sequence[Prompt], found: dict[int, list[Piece]]) -> int:
    """The number of files that lack over half of their prompt's onsets. Raises UserError if most do."""
    mismatched = total = 0
    for index, pieces in found.items():
        given = np.unique(prompts[index].prompt.notes["onset"])
        for piece in pieces:
            total += 1
            mismatched += 2 * np.isin(given, piece.notes["onset"]).sum() < len(given)
    if 2 * mismatched > total:
        raise UserError(
            f"--candidates: {mismatched} of {total} files in {folder} do not begin with the notes of their prompt; if they "
            "contain only continuations, set --config.candidates_include_prompt=False"
        )
    return mismatched


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"]
