"""From a checkpoint and a prompt to takes that one can read, see and hear."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from sage_jax.decoding.continuation import Takes, continue_piece, opening
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.midi import read_midi, save_midi
from sage_jax.music.notes import DRUMS, Piece
from sage_jax.rendering.audio import AudioUnavailable, render_wav
from sage_jax.rendering.piano_roll import draw_piano_roll
from sage_jax.training.checkpoint import load_for_sampling
from sage_jax.training.config import RunConfig, read_section
from sage_jax.training.metrics import read_metrics
from sage_jax.training.recorder import METRICS_FILE


@dataclasses.dataclass(frozen=True)
class TakesConfig:
    """How many takes of what length. Raises UserError naming the field.

    num_samples: takes, decoded as one batch. prompt_bars: bars of the prompt that are read. new_bars: bars that are
    written. max_events: a bound on the events of a take. seed: the same seed gives the same takes.
    """

    num_samples: int = 4
    prompt_bars: int = 4
    new_bars: int = 8
    max_events: int = 1024
    seed: int = 0

    def __post_init__(self):
        for field in ("num_samples", "prompt_bars", "new_bars", "max_events"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"sampling.{field} is {value!r}; give a whole number of at least 1")


def sample(
    config: Mapping[str, Any],
    workdir: str | os.PathLike,
    output: str | os.PathLike,
    prompt: str | None = None,
    instruments: list[str] | None = None,
) -> Takes:
    """Writes takes of the newest checkpoint in `workdir` to the folder `output`: MIDI, picture and WAV of each.

    prompt: a MIDI file, or None to start from nothing. instruments: the programs to play with, 0 to 127 or "drums"; None
    for all. Raises UserError for whatever a user can mend.
    """
    run = RunConfig.from_dict(config)
    names = {field.name for field in dataclasses.fields(TakesConfig)}
    wanted = read_section(TakesConfig, "sampling", {"sampling": {n: v for n, v in config["sampling"].items() if n in names}})
    rest = {"sampling": {n: v for n, v in config["sampling"].items() if n not in names}}
    sampling = read_section(SamplingConfig, "sampling", rest)
    programs = None if instruments is None else [parse_program(name) for name in instruments]
    params, saved, step = load_for_sampling(workdir)
    _check_same_model(workdir, run, saved)

    tokenizer = saved.tokenizer
    if prompt is None:
        name, bars, piece = "nothing", 0, Piece.from_notes([], tokenizer.ticks_per_quarter)
    else:
        name, bars = pathlib.Path(prompt).stem, wanted.prompt_bars
        piece = opening(read_midi(prompt, tokenizer.ticks_per_quarter), bars, prompt)
    piece = tokenizer.quantize(piece)
    takes = continue_piece(
        Generator(saved.model, params, tokenizer),
        piece,
        prompt_bars=bars,
        new_bars=wanted.new_bars,
        max_events=wanted.max_events,
        context=saved.data.num_events,
        takes=wanted.num_samples,
        sampling=sampling,
        seed=wanted.seed,
        programs=programs,
    )
    valid = [line["loss"] for line in read_metrics(pathlib.Path(workdir) / METRICS_FILE, "valid") if line["step"] <= step]
    about = {"prompt": name, "step": step, "valid_nats_per_note": valid[-1] if valid else None, **takes.speed}
    rows = write_takes(takes, piece, pathlib.Path(output), name)
    with replacing(pathlib.Path(output) / "takes.json") as temporary:
        temporary.write_text(json.dumps({**about, "takes": rows}, indent=2) + "\n")
    show(about, rows, output)
    return takes


def parse_program(name: str) -> int:
    """0 to 127, or 128 for "drums". Raises UserError for anything else."""
    if name.strip().lower() == "drums":
        return DRUMS
    if not name.strip().isdecimal() or int(name) > 127:
        raise UserError(f"instrument {name!r} is not in General MIDI; give programs from 0 to 127, or drums")
    return int(name)


def write_takes(takes: Takes, prompt: Piece, output: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """MIDI, picture and WAV of each take, and the prompt's MIDI; returns a row about each take."""
    save_midi(prompt, output / "prompt.mid")
    rows = []
    for number, (piece, notes, ended) in enumerate(zip(takes.pieces, takes.notes, takes.ended, strict=True), 1):
        stem = output / f"take_{number}"
        save_midi(piece, stem.with_suffix(".mid"))
        title = f"{name}, take {number}" if takes.prompt_end else f"take {number}"
        draw_piano_roll(piece, stem.with_suffix(".png"), prompt_end=takes.prompt_end or None, title=title)
        row = dict(take=number, new_notes=notes, bars=piece.num_bars, seconds=float(piece.seconds(piece.end)), ended=ended)
        try:
            row["wav"] = dataclasses.asdict(render_wav(piece, stem.with_suffix(".wav")))
        except AudioUnavailable as error:
            row["no_wav"] = str(error)
        rows.append(row)
    return rows


def show(about: Mapping[str, Any], rows: list[dict[str, Any]], output: str | os.PathLike) -> None:
    """Prints a line for each take, then what the model knows, how fast it plays, and where the files are."""
    console = Console(highlight=False)
    table = Table("take", "new notes", "bars", "seconds", "peak", "rms", "silent", title=f"Continuations of {about['prompt']}")
    for row in rows:
        wav = row.get("wav")
        levels = (f"{wav['peak']:.2f}", f"{wav['rms']:.3f}", f"{wav['silence']:.0%}") if wav else ("no WAV", "", "")
        table.add_row(str(row["take"]), str(row["new_notes"]), str(row["bars"]), f"{row['seconds']:.1f}", *levels)
    console.print(table)
    for message in {row["no_wav"] for row in rows if "no_wav" in row}:
        console.print(message, markup=False)
    summary = Table(show_header=False)
    if about["valid_nats_per_note"] is not None:
        summary.add_row("nats per note", f"{about['valid_nats_per_note']:.3f} on the validation split, step {about['step']}")
    times = f"prefill {about['prefill_seconds']:.2f} s and compiling {about['compile_seconds']:.1f} s apart"
    summary.add_row("notes per second", f"{about['notes_per_second']:,.0f} in a batch of {len(rows)}; {times}")
    summary.add_row("files", f"{output}/take_*.mid, .png{', .wav' if 'wav' in rows[0] else ''}, takes.json")
    console.print(summary, soft_wrap=True)


def _check_same_model(workdir: str | os.PathLike, run: RunConfig, saved: RunConfig) -> None:
    for name, (there, here) in run.differences(saved.to_dict()).items():
        if name.startswith(("model.", "tokenizer.")):
            raise UserError(
                f"the checkpoint in {workdir} is of another config: {name} is {there!r} there and {here!r} here; "
                f"give the --config that it was trained with"
            )
