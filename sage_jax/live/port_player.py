"""PortPlayer: a live session at MIDI ports of the system."""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from sage_jax.errors import UserError
from sage_jax.live.host import LiveHost
from sage_jax.live.ports import (
    ALL_NOTES_OFF,
    ALL_SOUND_OFF,
    CONTROL,
    DRUM_CHANNEL,
    NOTE_OFF,
    NOTE_ON,
    PROGRAM,
    Channels,
    Input,
    Output,
    PortNames,
    midi_package,
)
from sage_jax.live.queue import Message
from sage_jax.live.session import LiveSession
from sage_jax.live.settings import LiveSettings
from sage_jax.live.statistics import LiveStatistics
from sage_jax.music.notes import DRUMS

CHECK_SECONDS = 1.0  # between two looks at which ports there are
AHEAD = 0.01  # seconds before a message is sent at which it is taken from the session
LONGEST_WAIT = 0.1
MOST_LATENCY = 1000.0  # milliseconds


class PortPlayer:
    """Plays a session: what comes from the input is the player's, and what the model plays goes to the output in time.

    input, output: the port with this in its name; None for none. latency: milliseconds that the output takes to sound, by which
    messages are sent earlier. thru: whether the player's notes go to the output at once, past the model; False for an
    instrument that sounds by itself. say: takes one line about a port that comes or goes. Raises UserError where the system has
    no MIDI ports.
    """

    def __init__(
        self,
        session: LiveSession,
        input: str | None = None,
        output: str | None = None,
        *,
        latency: float = 0.0,
        thru: bool = True,
        say: Callable[[str], None] = print,
        package: Any = None,
    ):
        if not 0 <= latency <= MOST_LATENCY:
            raise UserError(f"midi latency is {latency!r}; give milliseconds from 0 to {MOST_LATENCY:g}")
        self.session, self.latency, self.thru = session, latency / 1000, thru
        names = None if input is output is None else PortNames(package or midi_package())
        self.input = Input(input, names, self._received, say) if input is not None and names else None
        self.output = Output(output, names, say) if output is not None and names else None
        self._channels, self._lock = Channels(), threading.Lock()
        self._heap: list[tuple[float, bool, int, Message]] = []  # by the time to send, note-offs first
        self._order = itertools.count()
        self._sounding: dict[int, tuple[int, int]] = {}  # channel and pitch, by the id of the note
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="midi ports", daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        """Opens the ports that are there, and starts the thread."""
        self._check()
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; nothing is left sounding."""
        self._stopped.set()
        self.session.notify()
        if self._thread.ident is not None:
            self._thread.join()
        for port in (self.input, self.output):
            if port is not None:
                port.lose()

    def __enter__(self) -> "PortPlayer":
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.close()

    # The player

    def _received(self, message: list[int]) -> None:
        """A message of the input, in a thread of the MIDI package."""
        if len(message) < 3:
            return
        status, pitch, velocity = message[:3]
        kind, channel = status & 0xF0, status & 0x0F
        if kind not in (NOTE_ON, NOTE_OFF):
            return
        program = DRUMS if channel == DRUM_CHANNEL else None
        is_on = kind == NOTE_ON and velocity > 0
        with contextlib.suppress(UserError):  # a session that has ended
            if is_on:
                self.session.note_on(pitch, velocity, program=program)
            else:
                self.session.note_off(pitch, program=program)
        if self.thru and self.output is not None:
            own = self.session.settings.player_program if program is None else program
            self._send("player", is_on, own, pitch, velocity if is_on else 0)

    # The model

    def _run(self) -> None:
        try:
            checked = time.monotonic()
            while not self._stopped.is_set():
                if time.monotonic() >= checked + CHECK_SECONDS:
                    self._check()
                    checked = time.monotonic()
                self._take()
                self._send_due()
                self._rest()
        except Exception as error:
            self.error = error
        finally:
            self._end()

    def _check(self) -> None:
        if self.input is not None:
            self.input.check()
        if self.output is not None and self.output.check():
            self._channels.forget()

    def _now(self) -> float:
        return self.session.host.now()

    def _take(self) -> None:
        """Takes the messages that are to be sent soon."""
        for message in self.session.poll(self._now() + self.latency + AHEAD):
            heapq.heappush(self._heap, (message.due - self.latency, message.is_on, next(self._order), message))

    def _send_due(self) -> None:
        while self._heap:
            wait = self._heap[0][0] - self._now()
            if wait > AHEAD:
                return
            if wait > 0:
                time.sleep(wait)
            *_, message = heapq.heappop(self._heap)
            self._play(message)

    def _rest(self) -> None:
        """Waits until there is something to take or to send."""
        now, due = self._now(), self.session.next_due()
        times = [now + LONGEST_WAIT, *([] if due is None else [due - self.latency - AHEAD / 2])]
        times += [self._heap[0][0] - AHEAD / 2] if self._heap else []
        wait = min(times) - now
        if wait > 0:
            self.session.wait(wait)

    def _play(self, message: Message) -> None:
        if message.is_on:
            sent = self._send("model", True, message.program, message.pitch, message.velocity)
            if sent is not None:
                self._sounding[message.note] = sent, message.pitch
        elif message.note in self._sounding:  # not one that began where there was no port
            channel, pitch = self._sounding.pop(message.note)
            self._raw(NOTE_OFF | channel, pitch, 0)

    def _send(self, part: str, is_on: bool, program: int, pitch: int, velocity: int) -> int | None:
        """Sends a note; returns its channel, None without a port."""
        if self.output is None or not self.output.is_open:
            return None
        with self._lock:
            channel, is_new = self._channels.of(part, program)
            if is_new:
                self.output.send(PROGRAM | channel, program)
            is_sent = self.output.send((NOTE_ON if is_on else NOTE_OFF) | channel, pitch, velocity)
        return channel if is_sent else None

    def _raw(self, *message: int) -> None:
        if self.output is not None:
            with self._lock:
                self.output.send(*message)

    def _end(self) -> None:
        """Ends everything that sounds at the output."""
        self._heap.clear()
        for channel, pitch in self._sounding.values():
            self._raw(NOTE_OFF | channel, pitch, 0)
        self._sounding.clear()
        for channel in range(16):
            self._raw(CONTROL | channel, ALL_NOTES_OFF, 0)
            self._raw(CONTROL | channel, ALL_SOUND_OFF, 0)


def play_ports(
    host: LiveHost,
    midi_in: str | None,
    midi_out: str | None,
    settings: LiveSettings | None = None,
    say: Callable[[str], None] = print,
    *,
    latency: float = 0.0,
    thru: bool = True,
    package: Any = None,
) -> LiveStatistics:
    """Plays a session of a started `host` at MIDI ports until Ctrl-C. Arguments as of PortPlayer.

    It says once when the model is too slow. Raises UserError as PortPlayer, and if the model has failed.
    """
    session = host.open(settings)
    advised = False
    try:
        with PortPlayer(session, midi_in, midi_out, latency=latency, thru=thru, say=say, package=package) as player:
            while player.error is None:
                time.sleep(CHECK_SECONDS / 4)
                advice = session.statistics().advice
                if advice and not advised:
                    say(advice)
                    advised = True
        if isinstance(player.error, UserError):
            raise player.error
        raise UserError(f"the MIDI ports have failed: {player.error}") from player.error
    except KeyboardInterrupt:
        return session.statistics()
    finally:
        session.close()
