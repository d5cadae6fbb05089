"""The files that an evaluation leaves: prompts for other systems, music to listen to, numbers."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.data.crops import evenly
from sage_jax.evaluation.prompts import Prompt, cut
from sage_jax.evaluation.results import Scored, plain
from sage_jax.files import write_json
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import Piece


def save_prompts(folder: pathlib.Path, prompts: Sequence[Prompt]) -> None:
    """A MIDI file of each prompt, and prompts.json with what another system needs to know: where it ends, and how much to write."""
    _clear(folder)
    rows = []
    for index, prompt in enumerate(prompts):
        save_midi(prompt.prompt, folder / f"{index:04d}.mid")
        quarters = prompt.prompt.ticks_per_quarter
        rows.append(
            {
                "file": f"{index:04d}.mid",
                "piece": prompt.name,
                "first_bar": prompt.start,
                "prompt_bars": prompt.prompt_bars,
                "prompt_quarters": prompt.end / quarters,
                "bars_to_write": prompt.bars,
                "quarters_to_write": prompt.length / quarters,
            }
        )
    write_json(folder / "prompts.json", rows, indent=1)


def _clear(folder: pathlib.Path) -> None:
    """Removes what an earlier call wrote to `folder`, numbered MIDI files, so that it is not taken for this one's."""
    for path in folder.glob("[0-9][0-9][0-9][0-9].mid"):
        path.unlink()


def save_music(folder: pathlib.Path, count: int, prompts: Sequence[Prompt], firsts: Mapping[str, Sequence[Piece]]) -> None:
    """MIDI files of `count` prompts, spread evenly, with what each system wrote behind them: a folder for each system."""
    for system in folder.glob("*"):
        _clear(system)
    for index in evenly(list(range(len(prompts))), count):
        for name, pieces in firsts.items():
            save_midi(_joined(prompts[index], pieces[index]), folder / name / f"{index:04d}.mid")


def save_numbers(output: pathlib.Path, prompts: Sequence[Prompt], scored: Mapping[str, Scored], found: Mapping[str, Any]) -> None:
    """scores.json, by prompt, for statistics of one's own; evaluation.json, with everything that was found."""
    by_prompt = [
        {"prompt": index, "piece": prompt.name, "bar": prompt.start, "bars": prompt.bars}
        | {"drums_only": bool(scored["loop"].drums_only[index])}
        | {name: {number: values[index] for number, values in each.values.items()} for name, each in scored.items()}
        for index, prompt in enumerate(prompts)
    ]
    write_json(output / "scores.json", plain(by_prompt), indent=1)
    write_json(output / "evaluation.json", found, indent=1)


def _joined(prompt: Prompt, continuation: Piece) -> Piece:
    """The prompt and what follows it, cut where the task ends, as one piece."""
    notes = cut(continuation, prompt.length).notes.copy()
    notes["onset"] += prompt.end
    return dataclasses.replace(prompt.prompt, notes=np.concatenate([prompt.prompt.notes, notes]))
