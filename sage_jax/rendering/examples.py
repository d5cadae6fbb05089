"""A page of examples from an evaluation: the prompts, and what each system makes of them, as pictures and players."""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.markdown import markdown_table
from sage_jax.music.midi import read_midi
from sage_jax.rendering.audio import render_mp3
from sage_jax.rendering.piano_roll import draw_piano_roll

TICKS = 12  # per quarter, of the pictures


def write_examples(
    evaluation: str | os.PathLike, systems: Sequence[str], page: pathlib.Path, about: str
) -> list[dict[str, Any]]:
    """Writes `page` in Markdown, and beside it a folder of its name with a picture, an MP3 and the MIDI of each example.

    evaluation: --output of launch.evaluate; its midi/ has the examples of each of `systems`. about: the text at the top.
    Returns a row for each example: 'piece', 'system', the statistics of its recording, and 'notes_per_second'. Raises UserError
    for a missing folder or system, and AudioUnavailable as `render_mp3`.
    """
    evaluation, files = pathlib.Path(evaluation), page.with_suffix("")
    prompts = _prompts(evaluation)
    for system in systems:
        if not (folder := evaluation / "midi" / system).is_dir():
            known = ", ".join(sorted(path.name for path in (evaluation / "midi").glob("*"))) or "none"
            raise UserError(f"there are no examples of {system} in {folder.parent}; known are {known}")
    shutil.rmtree(files, ignore_errors=True)
    sections, rows = [], []
    for path in sorted((evaluation / "midi" / systems[0]).glob("*.mid")):
        prompt = prompts[path.name]
        cells = []
        for system in systems:
            row = _example(evaluation / "midi" / system / path.name, files / f"{path.stem}-{system}", system, prompt)
            cells.append(_cells(row, f"{files.name}/{path.stem}-{system}"))
            rows.append(row)
        first, given, new = prompt["first_bar"] + 1, prompt["prompt_bars"], prompt["bars_to_write"]
        bars = f"Bars of the prompt: {given}, from bar {first}. Bars after it: {new}."
        table = markdown_table(("system", "picture", "recording", "seconds", "peak", "rms", "silent", "notes/s"), cells)
        sections.append(f"## {prompt['piece']}\n\n{bars}\n\n{table}")
    with replacing(page) as temporary:
        temporary.write_text("\n\n".join([about, *sections]) + "\n")
    return rows


def _prompts(evaluation: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The prompts of an evaluation by the name of their file."""
    path = evaluation / "prompts" / "prompts.json"
    try:
        return {prompt["file"]: prompt for prompt in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read ({type(error).__name__}); give a folder of launch.evaluate") from error


def _example(path: pathlib.Path, stem: pathlib.Path, system: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """Writes the picture, the recording and the MIDI file of an example; returns its row."""
    piece = read_midi(path, TICKS)
    stem.parent.mkdir(parents=True, exist_ok=True)
    draw_piano_roll(piece, f"{stem}.png", prompt_end=round(prompt["prompt_quarters"] * TICKS), title=system)
    shutil.copyfile(path, f"{stem}.mid")
    recorded = render_mp3(piece, f"{stem}.mp3")
    after = piece.notes[piece.notes["onset"] >= prompt["prompt_quarters"] * TICKS]
    seconds = float(piece.seconds(piece.end) - piece.seconds(round(prompt["prompt_quarters"] * TICKS)))
    density = len(after) / seconds if seconds > 0 else 0.0
    return {"piece": prompt["piece"], "system": system, "recording": recorded, "notes_per_second": density}


def _cells(row: dict[str, Any], stem: str) -> tuple[str, ...]:
    stats = row["recording"]
    return (
        row["system"],
        f"![{row['system']}]({stem}.png)",
        f'<audio controls src="{stem}.mp3"></audio> [MP3]({stem}.mp3) [MIDI]({stem}.mid)',
        f"{stats.seconds:.0f}",
        f"{stats.peak:.2f}",
        f"{stats.rms:.3f}",
        f"{stats.silence:.0%}",
        f"{row['notes_per_second']:.1f}",
    )
