"""Continuing a piece: as long as wanted, in windows no longer than what the model was trained on."""

import dataclasses

import jax
import numpy as np

from sage_jax.decoding.generate import Generator
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.music import events as ev
from sage_jax.music.events import NoteEvents
from sage_jax.music.notes import Piece

KEPT = 0.75  # how much of the trained context a window may fill before it is continued


@dataclasses.dataclass(frozen=True)
class Takes:
    """Continuations of one prompt; seconds of decoding (prefill apart) and of compiling.

    pieces: prompt and continuation together. notes: how many of each are new. ended: which the model brought to an end.
    prompt_end: the tick at which the prompt's last bar ends. prompt_events: its events. context_events: those of them that
    the model read, the opening of the window among them.
    """

    pieces: list[Piece]
    notes: list[int]
    ended: list[bool]
    prompt_end: int
    prompt_events: int
    context_events: int
    prefill_seconds: float
    decode_seconds: float
    compile_seconds: float

    @property
    def speed(self) -> dict[str, float]:
        """New notes of all takes for each second of decoding, and the seconds."""
        return dict(
            notes_per_second=sum(self.notes) / self.decode_seconds if self.decode_seconds else 0.0,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            compile_seconds=self.compile_seconds,
        )


def opening(piece: Piece, bars: int, name: str) -> Piece:
    """The first `bars` bars of `piece` from the first one with a note on. Raises UserError, naming it, where it has fewer."""
    if not len(piece.notes):
        raise UserError(f"{name} has no notes; give a MIDI file with notes, or no prompt to start from nothing")
    if bars < 1:
        raise UserError(f"prompt_bars is {bars}; give at least 1, or no prompt to start from nothing")
    first = int(piece.bars.locate(piece.notes["onset"][:1])[0][0])
    if piece.num_bars - first < bars:
        raise UserError(f"{name} has {piece.num_bars - first} bars of music, fewer than prompt_bars = {bars}; ask for fewer")
    return piece.slice_bars(first, first + bars)


def continue_piece(
    generator: Generator,
    prompt: Piece,
    *,
    prompt_bars: int,
    new_bars: int,
    max_events: int,
    context: int,
    takes: int = 4,
    sampling: SamplingConfig = SamplingConfig(),
    seed: int = 0,
    programs: list[int] | None = None,
) -> Takes:
    """`takes` continuations of `prompt` by `new_bars` bars, decoded as one batch, each by at most `max_events` events.

    prompt: quantized; it fills `prompt_bars` bars, 0 to start from nothing. context: the events that the model was trained
    on at once, which no window exceeds: of a longer prompt, and of a take that outgrows it, the model reads the last bars
    that fit in three quarters of it.
    """
    tokenizer = generator.tokenizer
    rows = [tokenizer.encode(prompt)[:-1] for _ in range(takes)]
    begun = len(rows[0])
    read = len(window(tokenizer, rows[0], int(context * KEPT))[0])
    finished = np.zeros(takes, bool)
    seconds = np.zeros(3)
    drawn, key = 0, jax.random.key(seed)
    while not finished.all() and drawn < max_events:
        windows, offsets = zip(*(window(tokenizer, row, int(context * KEPT)) for row in rows), strict=True)
        longest = max(len(part) for part, done in zip(windows, finished, strict=True) if not done)
        generation = generator.generate(
            [part[-longest:] for part in windows],
            # At least one: a chain of rests longer than the context must not stop the music for good.
            max_events=min(max(context - longest, 1), max_events - drawn),
            first_bar=prompt_bars - np.array(offsets),
            stop_bar=prompt_bars + new_bars - np.array(offsets),
            sampling=sampling,
            seed=jax.random.fold_in(key, drawn),
            programs=programs,
            finished=finished,
        )
        rows = [np.concatenate(pair) for pair in zip(rows, generation.continuations, strict=True)]
        finished = generation.finished
        drawn += generation.steps
        seconds += (generation.prefill_seconds, generation.decode_seconds, generation.compile_seconds)
    return Takes(
        pieces=[tokenizer.decode(row) for row in rows],
        notes=[int(NoteEvents.is_note(row[begun:]).sum()) for row in rows],
        ended=[bool(row[-1, ev.ONSET] == ev.EOS) for row in rows],
        prompt_end=int(prompt.bars.start(np.array([prompt_bars]))[0]),
        prompt_events=begun,
        context_events=read,
        **dict(zip(("prefill_seconds", "decode_seconds", "compile_seconds"), seconds.tolist(), strict=True)),
    )


def window(tokenizer: NoteEvents, events: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """The last bars of `events` that fit in `length` events, with their head, and the number of the bar they begin in.

    Of a last bar that is too long by itself, its last events.
    """
    if len(events) <= length:
        return events, 0
    room = length - ev.HEAD
    sounding = np.flatnonzero(events[:, ev.INSTRUMENT] > ev.REST)  # a window can't begin with a rest
    fits = lambda places: places[len(events) - places <= room]
    first = next((int(places[0]) for places in (fits(tokenizer.bar_starts(events)), fits(sounding)) if len(places)), None)
    first = int(sounding[-1]) if first is None else first
    return tokenizer.crop(events, first, len(events)), bar_of(tokenizer, events, first)


def bar_of(tokenizer: NoteEvents, events: np.ndarray, index: int) -> int:
    """The number of the bar in which the event at `index` stands, or which it begins."""
    before = tokenizer.decode(events[: index + 1])
    latest = [changes[-1] for changes in (before.notes["onset"], before.tempos["tick"], before.meters["tick"]) if len(changes)]
    return int(before.bars.locate(np.array([max(latest)]))[0][0])
