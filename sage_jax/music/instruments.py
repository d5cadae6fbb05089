"""Instruments by General MIDI program number or name."""

from collections.abc import Iterable

import numpy as np
import pretty_midi

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS, Piece


def program_of(instrument: int | str) -> int:
    """The program of an instrument: a number from 0 to 127, DRUMS (128), "drums", or a name such as "Acoustic Bass".

    Names are case-insensitive. Raises UserError for anything else.
    """
    text = str(instrument).strip()
    if text.lower() == "drums" or instrument == DRUMS:
        return DRUMS
    if text.isdecimal() and int(text) < DRUMS:
        return int(text)
    names = {pretty_midi.program_to_instrument_name(program).lower(): program for program in range(DRUMS)}
    if text.lower() not in names:
        raise UserError(f"instrument {text!r} is not in General MIDI; use programs 0 to 127, their names, or drums")
    return names[text.lower()]


def programs_of(instruments: Iterable[int | str]) -> list[int]:
    """The programs of several instruments. Raises UserError for an unknown instrument and for an empty list."""
    programs = [program_of(instrument) for instrument in instruments]
    if not programs:
        raise UserError("the list of instruments is empty; use programs 0 to 127, their names, or drums")
    return programs


def describe(programs: Iterable[int]) -> str:
    """Names for a message: "Acoustic Bass (32), drums"."""
    name_of = pretty_midi.program_to_instrument_name
    return ", ".join("drums" if program == DRUMS else f"{name_of(program)} ({program})" for program in programs)


def instrument_names() -> list[str]:
    """The General MIDI name of each program, "Drums" last."""
    return [*(pretty_midi.program_to_instrument_name(program) for program in range(DRUMS)), "Drums"]


def programs_in(piece: Piece) -> list[int]:
    """The programs of the notes in `piece`, ascending and without repeats; DRUMS for drums."""
    return np.unique(piece.notes["program"]).tolist()
