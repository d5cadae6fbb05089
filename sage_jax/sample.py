"""Takes as files to read, see and listen to, and a summary of them: what launch.sample does with a model."""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from sage_jax.api import Instruments, Model
from sage_jax.environment import cores
from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.midi import save_midi
from sage_jax.rendering.audio import AudioUnavailable, render_wav
from sage_jax.takes import Takes

TASKS = ("continue", "accompany", "infill")


def sample(
    model: Model,
    output: str | os.PathLike,
    prompt: str | None = None,
    instruments: Instruments = None,
) -> Takes:
    """Writes takes of `model` to the folder `output`: MIDI, picture and WAV of each, and takes.json.

    prompt: a MIDI file, or None to start from nothing. instruments: as in Model.continue_; without a prompt None means all.
    Raises UserError for whatever a user can mend.
    """
    output = pathlib.Path(output)
    read = model.read_prompt(prompt) if prompt else None
    _prepare(output)
    takes = model.continue_(read, instruments=instruments) if read else model.start(instruments)
    name, found = pathlib.Path(prompt).stem if prompt else "nothing", takes.continuations
    lengths = {"prompt_bars": model.continuation.prompt_bars if prompt else 0, "prompt_events": found.prompt_events}
    lengths["context_events"] = found.context_events
    _finish(model, takes, output, {"prompt": name, "changed": list(takes.changed), **lengths})
    return takes


def rewrite(
    model: Model, output: str | os.PathLike, prompt: str, task: str, own: Instruments, bars: str | None, lead: str
) -> Takes:
    """Writes takes of `model` that accompany or infill the MIDI file `prompt`, as `sample` does.

    task: "accompany" or "infill". own, bars, lead: as in Model.accompany. Raises UserError for whatever a user can mend.
    """
    output = pathlib.Path(output)
    _prepare(output)
    if task == "accompany":
        takes = model.accompany(prompt, own, lead=lead, bars=bars)
    elif bars is None:
        raise UserError("task is infill, which needs --bars, such as --bars=5-8")
    else:
        takes = model.infill(prompt, bars, own)
    about = {"prompt": pathlib.Path(prompt).stem, "changed": list(takes.changed), "task": task, "bars": bars}
    about |= {"own": own, "lead": lead if task == "accompany" else "span"}
    _finish(model, takes, output, about)
    return takes


def _prepare(output: pathlib.Path) -> None:
    with replacing(output / "takes.json"):
        pass  # fails before the work if the folder can't be written
    threading.Thread(target=_import_drawing).start()  # loading programs and decoding leave the interpreter idle


def _finish(model: Model, takes: Takes, output: pathlib.Path, about: dict[str, Any]) -> None:
    """Writes the files of `takes` and shows a summary."""
    known = dict(zip(("valid_step", "valid_nats_per_note"), model.valid or (), strict=False))
    about = {**about, "step": model.step, **known, **takes.continuations.speed}
    rows = write_takes(takes, output, about["prompt"])
    with replacing(output / "takes.json") as temporary:
        temporary.write_text(json.dumps({**about, "takes": rows}, indent=2) + "\n")
    show(about, rows, output)


def _import_drawing() -> None:
    """Imports matplotlib, which takes half a second. Where it is missing, `write_takes` raises the error."""
    with contextlib.suppress(ImportError):
        importlib.import_module("sage_jax.rendering.piano_roll")


def write_takes(takes: Takes, output: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """MIDI, picture and WAV of each take, and the prompt's MIDI, in place of earlier takes; returns a row about each."""
    from sage_jax.rendering.piano_roll import draw_piano_roll  # not at the top: `sample` imports it while it decodes

    for stale in output.glob("take_*.*"):
        if re.fullmatch(r"take_\d+\.(mid|png|wav)", stale.name):
            stale.unlink()
    save_midi(takes.prompt, output / "prompt.mid")
    found, rows = takes.continuations, []
    files = [(piece, output / f"take_{number}") for number, piece in enumerate(takes, 1)]
    for piece, stem in files:
        save_midi(piece, stem.with_suffix(".mid"))
    with ThreadPoolExecutor(cores()) as pool:  # the recordings' processes run while this one draws
        recordings = [pool.submit(render_wav, piece, stem.with_suffix(".wav")) for piece, stem in files]
        for number, (piece, stem) in enumerate(files, 1):
            title = f"{name}, take {number}" if found.prompt_end else f"take {number}"
            picture = stem.with_suffix(".png")
            draw_piano_roll(piece, picture, prompt_end=found.prompt_end or None, written=found.written, title=title)
    for number, (piece, notes, ended) in enumerate(zip(takes, found.notes, found.ended, strict=True), 1):
        row: dict[str, Any] = dict(take=number, new_notes=notes, bars=piece.num_bars, ended=ended)
        row["seconds"] = float(piece.seconds(piece.end))
        try:
            row["wav"] = dataclasses.asdict(recordings[number - 1].result())
        except AudioUnavailable as error:
            row["no_wav"] = str(error)
        rows.append(row)
    return rows


def show(about: Mapping[str, Any], rows: list[dict[str, Any]], output: str | os.PathLike) -> None:
    """Prints a line for each take, then what the model knows, how fast it plays, and where the files are."""
    console = Console(highlight=False)
    table = Table("take", "new notes", "bars", "seconds", "peak", "rms", "silent", title=f"Takes of {about['prompt']}")
    for row in rows:
        wav = row.get("wav")
        levels = (f"{wav['peak']:.2f}", f"{wav['rms']:.3f}", f"{wav['silence']:.0%}") if wav else ("no WAV", "", "")
        table.add_row(str(row["take"]), str(row["new_notes"]), str(row["bars"]), f"{row['seconds']:.1f}", *levels)
    console.print(table)
    for message in {row["no_wav"] for row in rows if "no_wav" in row}:
        console.print(message, markup=False)
    summary = Table(show_header=False)
    for line in about["changed"]:
        where, what, text = line.split(": ", 2)
        summary.add_row(f"{where}'s {what}", text)
    if "valid_step" in about:
        loss, step = about["valid_nats_per_note"], about["valid_step"]
        summary.add_row("nats per note", f"{loss:.3f} on the validation split at step {step}")
    if "task" in about:
        where = f"bars {about['bars']}" if about["bars"] else "all bars"
        summary.add_row("task", f"{about['task']}, {where}; what is given is known with the lead {about['lead']}")
    else:
        bars, events, read = (about[name] for name in ("prompt_bars", "prompt_events", "context_events"))
        left_out = f"; the model read the last {read}" if read < events else ""
        summary.add_row("prompt", f"{bars} bars, {events} events{left_out}")
    times = f"prefill {about['prefill_seconds']:.2f} s and compiling {about['compile_seconds']:.1f} s apart"
    summary.add_row("notes per second", f"{about['notes_per_second']:,.0f} in a batch of {len(rows)}; {times}")
    summary.add_row("files", f"{output}/take_*.mid, .png{', .wav' if 'wav' in rows[0] else ''}, takes.json")
    console.print(summary, soft_wrap=True)
