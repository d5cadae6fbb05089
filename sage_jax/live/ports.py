"""MIDI ports of the system: listing them, and an input and an output that come back when they were lost."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sage_jax.errors import UserError
from sage_jax.music.notes import DRUMS

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x80, 0x90, 0xB0, 0xC0  # status bytes of channel 0
ALL_NOTES_OFF, ALL_SOUND_OFF = 123, 120  # controllers
DRUM_CHANNEL = 9  # the tenth, of General MIDI


def midi_package() -> Any:
    """The package that reaches MIDI ports, rtmidi2. Raises UserError without it."""
    try:
        return importlib.import_module("rtmidi2")
    except ImportError as error:
        raise UserError(f"MIDI ports need the extra 'live' ({error}); pip install 'sage_jax[live]'") from error


def list_ports(package: Any = None) -> list[str]:
    """A line for each MIDI port, inputs first, or one that says there is none. Raises UserError as `PortNames`."""
    names = PortNames(package or midi_package())
    lines = [f"{kind}: {name}" for kind in ("input", "output") for name in names.of(kind)]
    return lines or ["no MIDI ports; connect an instrument, or start a synthesizer"]


class PortNames:
    """The names of the ports that are there now. Raises UserError where the system has no MIDI, such as no ALSA sequencer."""

    def __init__(self, package: Any):
        self.package = package
        try:
            with _without_native_errors():
                self._probes = {"input": package.MidiIn(), "output": package.MidiOut()}
        except Exception as error:
            raise UserError(f"this system offers no MIDI ports ({error}); play in the page instead") from error

    def of(self, kind: str) -> list[str]:
        """The names of the inputs or outputs, without those of this program itself."""
        try:
            return [name for name in self._probes[kind].ports if "RtMidi" not in name]
        except Exception:  # the sequencer went away
            return []


class Port:
    """The first input or output with `part` in its name, in any case, opened as soon as it is there.

    `check` looks after it: it says when the port is found, when it is lost and when it is back, with one line each.
    """

    kind = ""

    def __init__(self, part: str, names: PortNames, say: Callable[[str], None] = print):
        self.part, self.names, self.say = part, names, say
        self.name: str | None = None
        self._port: Any = None
        self._has_waited = False

    @property
    def is_open(self) -> bool:
        """Whether the port is there."""
        return self._port is not None

    def check(self) -> bool:
        """Opens the port if it has come, and gives it up if it has gone; returns whether it was opened now."""
        names = self.names.of(self.kind)
        if self.name is not None and self.name not in names:
            self.say(f"the MIDI {self.kind} {self.name} is gone; waiting for it")
            self.lose()
        if self.is_open:
            return False
        found = next((name for name in names if self.part.lower() in name.lower()), None)
        if found is None:
            if not self._has_waited:
                self.say(f"no MIDI {self.kind} has {self.part!r} in its name; waiting for one")
            self._has_waited = True
            return False
        try:
            port = self._opened(found)
        except Exception as error:
            if not self._has_waited:
                self.say(f"the MIDI {self.kind} {found} can't be opened ({error}); trying again")
            self._has_waited = True
            return False
        self.name, self._port, self._has_waited = found, port, True
        self.say(f"MIDI {self.kind}: {found}")
        return True

    def lose(self) -> None:
        """Gives the port up; `check` opens it again."""
        port, self._port, self.name = self._port, None, None
        self._has_waited = True
        with contextlib.suppress(Exception):  # it is gone
            if port is not None:
                port.close_port()

    def _opened(self, name: str) -> Any:
        raise NotImplementedError


class Input(Port):
    """An input, whose messages go to `on_message`, a list of bytes each, from a thread of the package."""

    kind = "input"

    def __init__(
        self, part: str, names: PortNames, on_message: Callable[[list[int]], None], say: Callable[[str], None] = print
    ):
        super().__init__(part, names, say)
        self._on_message = on_message

    def _opened(self, name: str) -> Any:
        port = self.names.package.MidiIn()
        port.ignore_types(True, True, True)
        port.callback = lambda message, seconds: self._on_message(message)
        port.open_port(port.ports.index(name))
        return port


class Output(Port):
    """An output."""

    kind = "output"

    def _opened(self, name: str) -> Any:
        port = self.names.package.MidiOut()
        port.open_port(port.ports.index(name))
        return port

    def send(self, *message: int) -> bool:
        """Sends the bytes of a message; returns whether there was a port to send it to."""
        if self._port is None:
            return False
        try:
            self._port.send_raw(*message)
        except Exception as error:
            self.say(f"the MIDI output {self.name} takes no messages ({error}); waiting for it")
            self.lose()
            return False
        return True


class Channels:
    """The MIDI channel of each program of a part, so that no part ends the notes of another; drums have the tenth.

    The sixteenth takes the place of the oldest.
    """

    def __init__(self):
        self._programs: dict[int, tuple[str, int]] = {}  # by channel, the oldest first

    def of(self, part: str, program: int) -> tuple[int, bool]:
        """The channel of a program, 128 for drums, and whether it must be set to this program first."""
        if program == DRUMS:
            return DRUM_CHANNEL, False
        for channel, other in self._programs.items():
            if other == (part, program):
                return channel, False
        free = [channel for channel in range(16) if channel != DRUM_CHANNEL and channel not in self._programs]
        channel = free[0] if free else next(iter(self._programs))
        self._programs.pop(channel, None)
        self._programs[channel] = part, program
        return channel, True

    def forget(self) -> None:
        """Every program is set anew, as at an output that has come back."""
        self._programs.clear()


@contextlib.contextmanager
def _without_native_errors() -> Iterator[None]:
    """Keeps what a C library prints about a missing sequencer off the terminal: the error says it in one line."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
