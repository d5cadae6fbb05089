"""The files that an evaluation leaves: prompts for other systems, music to listen to, numbers."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sage_jax.evaluation.prompts import Prompt, cut, empty
from sage_jax.evaluation.results import Scored, plain
from sage_jax.files import replacing
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
    with replacing(folder / "prompts.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")


def _clear(folder: pathlib.Path) -> None:
    """Removes what an earlier call wrote to `folder`, numbered MIDI files, so that it is not taken for this one's."""
    for path in folder.glob("[0-9][0-9][0-9][0-9].mid"):
        path.unlink()


def save_music(folder: pathlib.Path, count: int, prompts: Sequence[Prompt], firsts: Mapping[str, Sequence[Piece]]) -> None:
    """MIDI files of `count` prompts, spread evenly, with what each system wrote behind them: a folder for each system."""
    for system in folder.glob("*"):
        _clear(system)
    count = min(count, len(prompts))
    for place in range(count):
        index = place * len(prompts) // count
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
    for name, value in (("scores.json", plain(by_prompt)), ("evaluation.json", found)):
        with replacing(output / name) as temporary:
            temporary.write_text(json.dumps(value, indent=1) + "\n")


def _joined(prompt: Prompt, continuation: Piece) -> Piece:
    """The prompt and what follows it, cut where the task ends, as one piece."""
    follows = cut(continuation, prompt.length * continuation.ticks_per_quarter // prompt.reference.ticks_per_quarter)
    notes = follows.notes.copy()
    notes["onset"] += prompt.end
    whole = empty(prompt.prompt)
    return dataclasses.replace(
        whole, notes=np.concatenate([prompt.prompt.notes, notes]), tempos=prompt.prompt.tempos, meters=prompt.prompt.meters
    )
