"""From a checkpoint and a prompt to takes that one can read, see and hear."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sage_jax.decoding.continuation import Takes, continue_piece, opening
from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.music.loss import GridLoss, loss_rows
from sage_jax.music.midi import read_midi, save_midi
from sage_jax.music.notes import DEFAULT_METER, DEFAULT_QPM, DRUMS, Piece
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
    written. max_events: a bound on the events of a take. seed: the same seed gives the same takes. qpm, meter: tempo and
    time signature of what starts from nothing.
    """

    num_samples: int = 4
    prompt_bars: int = 4
    new_bars: int = 8
    max_events: int = 1024
    seed: int = 0
    qpm: float = DEFAULT_QPM
    meter: tuple[int, int] = DEFAULT_METER

    def __post_init__(self):
        object.__setattr__(self, "meter", tuple(self.meter))
        for field, low in (("num_samples", 1), ("prompt_bars", 1), ("new_bars", 1), ("max_events", 1), ("seed", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or not low <= value < 2**31:
                raise UserError(f"takes.{field} is {value!r}; give a whole number of at least {low}")
        if not 4 <= self.qpm <= 1000:
            raise UserError(f"takes.qpm is {self.qpm!r}; give quarters per minute from 4 to 1000")
        if len(self.meter) != 2 or not 1 <= self.meter[0] <= 16 or self.meter[1] not in (1, 2, 4, 8, 16):
            raise UserError(f"takes.meter is {self.meter!r}; give a time signature like (3, 4)")


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
    wanted = read_section(TakesConfig, "takes", config)
    sampling = read_section(SamplingConfig, "sampling", config)
    programs = None if instruments is None else parse_programs(instruments)
    params, saved, step, tokenizer = load_for_sampling(workdir)
    _check_same_model(workdir, run, saved)
    model = dataclasses.replace(saved.model, dtype=run.model.dtype)

    ticks = tokenizer.grid.ticks_per_quarter
    changed = []
    if prompt is None:
        name, bars = "nothing", 0
        if wanted.meter not in tokenizer.grid.meters:
            raise UserError(f"takes.meter is {wanted.meter!r}, which the vocabulary lacks; give a shorter bar or a simpler beat")
        read = Piece.from_notes([], ticks, wanted.qpm, wanted.meter)
        piece = tokenizer.quantize(read)
    else:
        name, in_file, in_prompt = pathlib.Path(prompt).stem, GridLoss(), GridLoss()
        # The bars are those of the file. The vocabulary may split one into several.
        read = opening(read_midi(prompt, ticks, loss=in_file), wanted.prompt_bars, prompt)
        end = read.bar_start(wanted.prompt_bars)
        piece = tokenizer.quantize(read, in_prompt, end)
        bars = piece.bar_of(end - 1) + 1
        in_prompt.count({"notes": len(read.notes), "tempos": len(read.tempos), "meters": len(read.meters)})
        for where, loss in (("file", in_file), ("prompt", in_prompt)):
            changed += [f"{where}: {what}: {text}" for what, text, is_changed in loss_rows(loss.to_dict()) if is_changed]
    with replacing(pathlib.Path(output) / "takes.json"):
        pass  # where nothing can be written, that is said before the work
    takes = continue_piece(
        Generator(model, params, tokenizer),
        piece,
        prompt_bars=bars,
        new_bars=wanted.new_bars,
        max_events=saved.representation.steps(wanted.max_events),
        context=saved.context,
        takes=wanted.num_samples,
        sampling=sampling,
        seed=wanted.seed,
        programs=programs,
    )
    takes = dataclasses.replace(takes, pieces=[at_true_tempos(take, piece, read, takes.prompt_end) for take in takes.pieces])
    valid = [line for line in read_metrics(pathlib.Path(workdir) / METRICS_FILE, "valid") if line["step"] <= step]
    known = {"valid_nats_per_note": valid[-1]["loss"], "valid_step": valid[-1]["step"]} if valid else {}
    lengths = {"prompt_bars": wanted.prompt_bars if bars else 0, "prompt_events": takes.prompt_events}
    lengths["context_events"] = takes.context_events
    about = {"prompt": name, "changed": changed, **lengths, "step": step, **known, **takes.speed}
    rows = write_takes(takes, at_true_tempos(piece, piece, read, takes.prompt_end), pathlib.Path(output), name)
    with replacing(pathlib.Path(output) / "takes.json") as temporary:
        temporary.write_text(json.dumps({**about, "takes": rows}, indent=2) + "\n")
    show(about, rows, output)
    return takes


def at_true_tempos(take: Piece, prompt: Piece, read: Piece, prompt_end: int) -> Piece:
    """`take`, which begins with the quantized `prompt` up to the tick `prompt_end`, at the tempos of the prompt as it was `read`.

    The tempo in force at the end of the prompt goes on as it was read; others are those that the model wrote.
    """
    tempos = take.tempos[take.tempos["tick"] >= max(prompt_end, 1)].copy()
    tempos["qpm"][tempos["qpm"] == prompt.tempos["qpm"][-1]] = read.tempos["qpm"][-1]
    tempos = np.concatenate([read.tempos, tempos])
    return dataclasses.replace(take, tempos=tempos[np.append(True, np.diff(tempos["qpm"]) != 0)])


def parse_programs(names: list[str]) -> list[int]:
    """0 to 127 each, or 128 for "drums". Raises UserError for anything else, and for none at all."""
    names = [name.strip().lower() for name in names]
    for name in names or [""]:
        if name != "drums" and not (name.isdecimal() and int(name) <= 127):
            raise UserError(f"instrument {name!r} is not in General MIDI; give programs from 0 to 127, or drums")
    return [DRUMS if name == "drums" else int(name) for name in names]


def write_takes(takes: Takes, prompt: Piece, output: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """MIDI, picture and WAV of each take, and the prompt's MIDI, in place of earlier takes; returns a row about each."""
    for stale in output.glob("take_*.*"):
        if re.fullmatch(r"take_\d+\.(mid|png|wav)", stale.name):
            stale.unlink()
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
    for line in about["changed"]:
        where, what, text = line.split(": ", 2)
        summary.add_row(f"{where}'s {what}", text)
    if "valid_step" in about:
        loss, step = about["valid_nats_per_note"], about["valid_step"]
        summary.add_row("nats per note", f"{loss:.3f} on the validation split at step {step}")
    bars, events, read = (about[name] for name in ("prompt_bars", "prompt_events", "context_events"))
    summary.add_row("prompt", f"{bars} bars, {events} events" + (f"; the model read the last {read}" if read < events else ""))
    times = f"prefill {about['prefill_seconds']:.2f} s and compiling {about['compile_seconds']:.1f} s apart"
    summary.add_row("notes per second", f"{about['notes_per_second']:,.0f} in a batch of {len(rows)}; {times}")
    summary.add_row("files", f"{output}/take_*.mid, .png{', .wav' if 'wav' in rows[0] else ''}, takes.json")
    console.print(summary, soft_wrap=True)


def _check_same_model(workdir: str | os.PathLike, run: RunConfig, saved: RunConfig) -> None:
    for name, (there, here) in run.differences(saved.to_dict()).items():
        if name.startswith(("model.", "tokenizer.", "representation.")) and name != "model.dtype":
            raise UserError(
                f"the checkpoint in {workdir} is of another config: {name} is {there!r} there and {here!r} here; "
                f"give the --config that it was trained with"
            )
