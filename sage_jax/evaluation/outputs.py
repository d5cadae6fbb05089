"""The files that an evaluation writes: prompts for other systems, MIDI examples, and numbers as JSON."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from sage_jax.corpus.splits import subsample_evenly
from sage_jax.evaluation.prompts import Prompt, cut
from sage_jax.evaluation.results import Evaluation, SystemScores, to_jsonable
from sage_jax.files import write_json
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import Piece


def save_prompts(folder: pathlib.Path, prompts: Sequence[Prompt]) -> None:
    """Writes a MIDI file of each prompt, and prompts.json with the position of each and the length to generate."""
    _clear(folder)
    rows = []
    for index, prompt in enumerate(prompts):
        save_midi(prompt.prompt, folder / f"{index:04d}.mid")
        ticks_per_quarter = prompt.prompt.ticks_per_quarter
        rows.append(
            {
                "file": f"{index:04d}.mid",
                "piece": prompt.name,
                "first_bar": prompt.start,
                "prompt_bars": prompt.prompt_bars,
                "prompt_quarters": prompt.end / ticks_per_quarter,
                "bars_to_write": prompt.bars,
                "quarters_to_write": prompt.length / ticks_per_quarter,
            }
        )
    write_json(folder / "prompts.json", rows, indent=1)


def _clear(folder: pathlib.Path) -> None:
    """Removes the numbered MIDI files of an earlier call."""
    for path in folder.glob("[0-9][0-9][0-9][0-9].mid"):
        path.unlink()


def save_music(folder: pathlib.Path, count: int, prompts: Sequence[Prompt], firsts: Mapping[str, Sequence[Piece]]) -> None:
    """Writes `count` evenly spaced prompts, each followed by a system's continuation, as MIDI: a folder for each system.

    firsts: by system, one continuation of each prompt.
    """
    for system in folder.glob("*"):
        _clear(system)
    for index in subsample_evenly(list(range(len(prompts))), count):
        for name, pieces in firsts.items():
            save_midi(_joined(prompts[index], pieces[index]), folder / name / f"{index:04d}.mid")


def save_numbers(
    output: pathlib.Path, prompts: Sequence[Prompt], scored: Mapping[str, SystemScores], evaluation: Evaluation
) -> None:
    """Writes scores.json, with the scores of each prompt, and evaluation.json, with the whole result."""
    by_prompt = [
        {"prompt": index, "piece": prompt.name, "bar": prompt.start, "bars": prompt.bars}
        | {"drums_only": bool(scored["loop"].drums_only[index])}
        | {system: {name: values[index] for name, values in each.values.items()} for system, each in scored.items()}
        for index, prompt in enumerate(prompts)
    ]
    write_json(output / "scores.json", to_jsonable(by_prompt), indent=1)
    write_json(output / "evaluation.json", evaluation.to_json(), indent=1)


def _joined(prompt: Prompt, continuation: Piece) -> Piece:
    """The prompt followed by the continuation, which is cut at the end of the task, as one piece."""
    notes = cut(continuation, prompt.length).notes.copy()
    notes["onset"] += prompt.end
    return prompt.prompt.with_notes(np.concatenate([prompt.prompt.notes, notes]))
