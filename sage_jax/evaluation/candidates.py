"""What other systems wrote behind the prompts: folders of MIDI files."""

import functools
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from sage_jax.errors import UserError
from sage_jax.evaluation.continuation import Written
from sage_jax.evaluation.prompts import Prompt, cut, empty
from sage_jax.evaluation.syntax import Faults, faults_of_notes
from sage_jax.music.midi import BadMidi, read_midi
from sage_jax.music.notes import Piece
from sage_jax.music.workers import Failure, run_tasks

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
        takes = files.setdefault(int(match[1]), {}) if match and int(match[1]) < len(prompts) else None
        if takes is not None and int(match[2] or 0) not in takes:
            takes[int(match[2] or 0)] = path
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
    lacking = _check_prompts(folder, prompts, found) if hold_prompt else 0
    continuations, faults, failures = [], Faults(), 0
    for index, prompt in enumerate(prompts):
        pieces = [cut(prompt.continuation(piece) if hold_prompt else piece, prompt.length) for piece in found[index]]
        faults = sum(map(faults_of_notes, pieces), faults)
        pieces += [empty(prompt.reference)] * (count - len(pieces))
        failures += sum(not len(piece.notes) for piece in pieces)
        continuations.append(pieces)
    missing = [f"{index:04d}" for index in range(len(prompts)) if len(files.get(index, ())) < count]
    lines = [
        *_listed(f"prompts without {count} file(s), counted as silence", missing),
        *_listed("files that can't be read, counted as silence", broken),
        *_listed("files that belong to no prompt, or to one that has this sample already, passed over", strangers),
        *([f"{lacking} file(s) do not begin with the notes of their prompt; they are scored as they are"] if lacking else []),
    ]
    return Written(continuations, faults, failures, tuple(lines))


def _read(ticks_per_quarter: int, path: str) -> Piece | Failure:
    """Runs in a worker."""
    try:
        return read_midi(path, ticks_per_quarter)
    except BadMidi as error:
        return Failure(error.reason, str(error))


def _check_prompts(folder: pathlib.Path, prompts: Sequence[Prompt], found: dict[int, list[Piece]]) -> int:
    """How many files lack half of their prompt's onsets. Raises UserError where most do."""
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
    return lacking


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"]
